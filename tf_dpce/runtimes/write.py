"""Adds the files of other runtimes to an export, and compares them with it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_dpce.errors import UserError
from tf_dpce.export.versions import version_digest
from tf_dpce.files import sha256_file
from tf_dpce.runtimes import Precision
from tf_dpce.runtimes.engines import ENGINES, check_installed, missing_package
from tf_dpce.runtimes.manifest import FOLDER, IMAGE, TEXT, WORDS, RuntimeManifest, model_file

if TYPE_CHECKING:
    import keras

    from tf_dpce.export.serving_module import ServingModule


# Numbers of images, with all their captions.
FITTED_IMAGES, _HELD_OUT_IMAGES = 100, 100


def check_formats(
    formats: Sequence[str], precision: Precision = "float32", data: object = None
) -> None:
    """Makes sure, before any work, that an export can be written for runtimes and tried there.

    Args:
        formats: names of runtimes.
        precision: that of LiteRT's files.
        data: None if there is no prepared data.

    Raises:
        UserError: a package is not installed, there is no such runtime, or the precision is not
            that of any file or needs data.
    """
    if precision != "float32" and "litert" not in formats:
        message = f"only LiteRT computes in {precision}: give --format litert, or no --precision"
        raise UserError("runtimes.precision", message)
    if precision == "int8" and data is None:
        message = "int8 is fitted to training examples: give prepared data with --data"
        raise UserError("runtimes.precision", message)
    check_installed(formats)
    for module in (module for name in formats for module in ENGINES[name].writers):
        if find_spec(module) is None:
            raise missing_package("an export for it", module)


def write_runtimes(
    module: ServingModule,
    version: Path,
    formats: Sequence[str],
    precision: Precision = "float32",
    data: Path | None = None,
) -> None:
    """Writes both encoders for runtimes into the folder of a version, and tries them.

    Args:
        module: what is exported.
        version: the folder of the version, with its SavedModel and its golden examples.
        formats: names of runtimes, at least one.
        precision: that of LiteRT's files. "float16" stores weights in half; "dynamic" stores them
            in int8, and rounds what they are multiplied with for each call anew; "int8" computes
            in whole numbers from the first layer to the last, by ranges that training examples
            had.
        data: for int8, the prepared data that the model was trained on.

    Raises:
        UserError: the tokenizer or an operation of the model has no counterpart; the data has
            another vocabulary; or a runtime answers differently from the SavedModel.
    """
    from tf_dpce.models.fuse_batch_norm import folded
    from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
    from tf_dpce.runtimes.examples import FITTED, HELD_OUT, check_data, first_examples
    from tf_dpce.runtimes.parity import check_held_out, check_parity

    check_formats(formats, precision, data)
    tokenizer = module.tokenizer
    if type(tokenizer) is not CaptionTokenizer or tokenizer.kind == "characters":
        message = "other runtimes know only words and their pieces: export without --format"
        raise UserError("runtimes.tokenizer", message)
    examples = {}
    if precision == "int8":
        trained = tokenizer.words[: len(tokenizer.words) - tokenizer.inferred]
        check_data(data, trained if tokenizer.kind == "words" else None)
        examples = first_examples(module, data, FITTED, FITTED_IMAGES)
    folder = version / FOLDER
    encoders = {IMAGE: folded(module.model.image_encoder), TEXT: folded(module.model.text_encoder)}
    for runtime in formats:
        for kind, encoder in encoders.items():
            path = folder / model_file(runtime, kind)
            own = examples.get(kind, ())
            _write_encoder(encoder, runtime, path, precision=precision, examples=own)
    words = "".join(f"{word}\n" for word in tokenizer.words)
    (folder / WORDS).write_text(words, encoding="utf-8", newline="\n")
    counts = {kind: len(rows) for kind, rows in examples.items()}
    _manifest(module, version, precision, counts).write(version)
    for runtime in formats:
        check_parity(module, version, runtime)
    if precision == "int8":
        check_held_out(encoders, version, first_examples(module, data, HELD_OUT, _HELD_OUT_IMAGES))


def _manifest(
    module: ServingModule, version: Path, precision: Precision, examples: dict[str, int]
) -> RuntimeManifest:
    """Returns the manifest of the files that are there."""
    from tf_dpce.models.trimming import needed_positions

    folder, tokenizer = version / FOLDER, module.tokenizer
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return RuntimeManifest(
        model=version_digest(version),
        dimension=module.dimension,
        image_size=module.image_size,
        resize=module.resize,
        max_bytes=module.limits.max_bytes,
        max_pixels=module.limits.max_pixels,
        max_length=tokenizer.max_length,
        lowercase=tokenizer.lowercase,
        pieces=tokenizer.kind == "wordpiece",
        inferred=tokenizer.inferred,
        positions=list(needed_positions(module.model.text_tower)),
        precision=precision,
        examples=examples,
        files={path.relative_to(folder).as_posix(): sha256_file(path) for path in files},
    )


def _write_encoder(encoder: keras.Model, runtime: str, path: Path, **of_litert: Any) -> None:
    """Writes one encoder for a runtime; `of_litert` are arguments of `write_litert` alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if runtime == "litert":
        from tf_dpce.runtimes.litert import write_litert

        return write_litert(encoder, path, **of_litert)
    from tf_dpce.runtimes.onnx_graph import write_onnx

    if runtime == "onnx":
        return write_onnx(encoder, path)
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "graph.onnx"
        write_onnx(encoder, graph)
        openvino.save_model(openvino.convert_model(graph), path, compress_to_fp16=False)
