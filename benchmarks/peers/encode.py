"""The encoders of an export in each runtime of ours, beside runtimes that are called bare."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pairs import CORES, Pair, Side, Work
from benchmarks.peers.export import WORDS, export_config, write_export

_PRESET = "flickr8k_mobilenet"
_FORMATS = ("onnx", "openvino", "litert")
# Encoded in a round: half a second or more, in which the first call after another process worked,
# with cold caches and sleeping threads, does not count much.
_ITEMS = {"images": 128, "captions": 1024}


def pairs(images: Path | None) -> list[Pair]:
    """Returns a pair for each tower and size of a batch; pixels and captions are drawn.

    Ours encodes images from pixels, and captions from their text. Bare runtimes get pixels, and the
    ids of all token positions, which no tokenizer has to make.
    """
    return [_pair(kind, batch) for kind in ("images", "captions") for batch in (1, 8, 64)]


def _pair(kind: str, batch: int) -> Pair:
    given = {"kind": kind, "batch": batch}
    peers = (
        Side("ONNX Runtime, bare", f"{__name__}:onnx", given, ("onnxruntime",), goal=0.95),
        Side("OpenVINO, bare", f"{__name__}:openvino", given, ("openvino",), goal=0.95),
        Side("ours in OpenVINO", f"{__name__}:ours", {**given, "runtime": "openvino"}),
        Side("ours in LiteRT", f"{__name__}:ours", {**given, "runtime": "litert"}),
    )
    ours = Side("ours in ONNX Runtime", f"{__name__}:ours", {**given, "runtime": "onnx"})
    case = f"{kind}, {batch} at a time"
    return Pair(case, f"{kind} a second", ours, peers, rounds=7, warm_up=1)


def ours(folder: Path, kind: str, batch: int, runtime: str) -> Work:
    """Opens an encoder as `tf_dpce.load` does; the first one writes the export."""
    from benchmarks.material import random_captions
    from tf_dpce.runtimes.load import load

    version = folder / "model" / "1"
    if not version.exists():
        write_export(folder, _PRESET, _FORMATS)
    loaded = load(version, runtime)
    if kind == "images":
        return _work(kind, loaded.image_engine, _inputs(kind, batch))
    captions = [caption.encode() for caption in random_captions(batch, WORDS)]
    return _work(kind, lambda texts: loaded.encode_contents("texts", texts)[0], captions)


def onnx(folder: Path, kind: str, batch: int) -> Work:
    """Opens a session of ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES
    session = onnxruntime.InferenceSession(_file(folder, kind, "onnx"), options)
    name = session.get_inputs()[0].name
    return _work(kind, lambda rows: session.run(None, {name: rows})[0], _inputs(kind, batch))


def openvino(folder: Path, kind: str, batch: int) -> Work:
    """Opens a compiled model of OpenVINO, in float32 as all others."""
    import openvino as runtime

    settings = {"INFERENCE_NUM_THREADS": CORES, "INFERENCE_PRECISION_HINT": "f32"}
    network = runtime.Core().compile_model(_file(folder, kind, "openvino"), "CPU", settings)
    return _work(kind, lambda rows: network(rows)[0], _inputs(kind, batch))


def _file(folder: Path, kind: str, runtime: str) -> Path:
    from tf_dpce.runtimes.manifest import FOLDER, IMAGE, TEXT, model_file

    tower = IMAGE if kind == "images" else TEXT
    return folder / "model" / "1" / FOLDER / model_file(runtime, tower)


def _inputs(kind: str, batch: int) -> np.ndarray:
    """Returns pixels, or the ids that `random_tokenizer` gives `random_captions`."""
    from benchmarks.material import random_captions

    config = export_config(_PRESET)
    if kind == "images":
        shape = (batch, config.image.input_size, config.image.input_size, 3)
        return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    rows = np.zeros((batch, config.text.max_length), np.int32)
    for row, caption in zip(rows, random_captions(batch, WORDS), strict=True):
        words = [int(word.removeprefix("word")) + 1 for word in caption.split()]
        row[: len(words)] = words
    return rows


def _work(kind: str, run: Callable[[Any], np.ndarray], inputs: Any) -> Work:
    calls = _ITEMS[kind] // len(inputs)

    def encode() -> None:
        for _ in range(calls):
            run(inputs)

    return Work(encode, np.array(run(inputs)), calls * len(inputs))
