"""Adds the files of other runtimes to an export, and compares them with it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tf_dpce.errors import UserError
from tf_dpce.export.versions import version_digest
from tf_dpce.files import sha256_file
from tf_dpce.runtimes.engines import ENGINES, check_installed, missing_package
from tf_dpce.runtimes.manifest import FOLDER, IMAGE, TEXT, WORDS, RuntimeManifest, model_file

if TYPE_CHECKING:
    import keras

    from tf_dpce.export.serving_module import ServingModule


def check_formats(formats: Sequence[str]) -> None:
    """Makes sure, before any work, that an export can be written for runtimes and tried there.

    Raises:
        UserError: a package is not installed, or there is no such runtime.
    """
    check_installed(formats)
    for module in (module for name in formats for module in ENGINES[name].writers):
        if find_spec(module) is None:
            raise missing_package("an export for it", module)


def write_runtimes(module: ServingModule, version: Path, formats: Sequence[str]) -> None:
    """Writes both encoders for runtimes into the folder of a version, and tries them.

    Args:
        module: what is exported.
        version: the folder of the version, with its SavedModel and its golden examples.
        formats: names of runtimes, at least one.

    Raises:
        UserError: the tokenizer or an operation of the model has no counterpart; or a runtime
            answers differently from the SavedModel.
    """
    from tf_dpce.models.fuse_batch_norm import folded
    from tf_dpce.models.trimming import needed_positions
    from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
    from tf_dpce.runtimes.parity import check_parity

    check_formats(formats)
    if type(module.tokenizer) is not CaptionTokenizer or module.tokenizer.kind == "characters":
        message = "other runtimes know only words and their pieces: export without --format"
        raise UserError("runtimes.tokenizer", message)
    folder = version / FOLDER
    encoders = {IMAGE: folded(module.model.image_encoder), TEXT: folded(module.model.text_encoder)}
    for runtime in formats:
        for kind, encoder in encoders.items():
            write_encoder(encoder, runtime, folder / model_file(runtime, kind))
    words = "".join(f"{word}\n" for word in module.tokenizer.words)
    (folder / WORDS).write_text(words, encoding="utf-8", newline="\n")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    RuntimeManifest(
        model=version_digest(version),
        dimension=module.dimension,
        image_size=module.image_size,
        resize=module.resize,
        max_bytes=module.limits.max_bytes,
        max_pixels=module.limits.max_pixels,
        max_length=module.tokenizer.max_length,
        lowercase=module.tokenizer.lowercase,
        pieces=module.tokenizer.kind == "wordpiece",
        inferred=module.tokenizer.inferred,
        positions=list(needed_positions(module.model.text_tower)),
        files={path.relative_to(folder).as_posix(): sha256_file(path) for path in files},
    ).write(version)
    for runtime in formats:
        check_parity(module, version, runtime)


def write_encoder(encoder: keras.Model, runtime: str, path: Path) -> None:
    """Writes one encoder for a runtime.

    Args:
        encoder: what `models.fuse_batch_norm.folded` returned, see `onnx_graph.write_onnx`.
        runtime: the name of the runtime.
        path: the file to write; its folder is made.

    Raises:
        UserError: the encoder has an operation that has no counterpart.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _WRITERS[runtime](encoder, path)


def _onnx(encoder: keras.Model, path: Path) -> None:
    from tf_dpce.runtimes.onnx_graph import write_onnx

    write_onnx(encoder, path)


def _openvino(encoder: keras.Model, path: Path) -> None:
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "graph.onnx"
        _onnx(encoder, graph)
        openvino.save_model(openvino.convert_model(graph), path, compress_to_fp16=False)


def _litert(encoder: keras.Model, path: Path) -> None:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    # For one row at a time: all shapes are known then, and XNNPACK computes the whole graph.
    shape = (1, *encoder.input_shape[1:])
    given = tf.TensorSpec(shape, encoder.input.dtype, name="rows")
    function = tf.function(lambda rows: encoder(rows, training=False), [given], autograph=False)
    # The converter itself leaves Keras's weights out, as variables that nobody sets.
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    path.write_bytes(converter.convert())


_WRITERS: dict[str, Callable[[keras.Model, Path], None]] = {
    "onnx": _onnx,
    "openvino": _openvino,
    "litert": _litert,
}
