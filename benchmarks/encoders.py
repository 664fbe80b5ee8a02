"""What exported encoders encode in a second, beside other runtimes with the same weights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.material import (
    random_images,
    random_model,
    random_sentences,
    random_vocabulary,
)
from benchmarks.session_runner import SessionRunner, saved
from benchmarks.timing import Row, interleave, row
from tf_dpce.config import Config
from tf_dpce.evaluation.embed import inference
from tf_dpce.export.publish import write_archive
from tf_dpce.export.serving_module import ServingModule
from tf_dpce.models.fuse_batch_norm import folded
from tf_dpce.models.trimming import trimming
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

EXPORT = "export, from raw input"
ENCODER = "its encoder alone"
UNFOLDED = "the same, BatchNorm apart"

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Case:
    """One of the two encoders, and rows for it.

    Attributes:
        kind: "images" or "sentences".
        export: takes raw rows.
        raw: bytes `[N]`.
        runs: by runtime, take what the tower does.
        rows: `[N, ...]` of that.
    """

    kind: str
    export: SessionRunner
    raw: np.ndarray
    runs: Mapping[str, Run]
    rows: np.ndarray


def measure(
    config: Config,
    *,
    words: int = 7_400,
    batches: Sequence[int] = (1, 8, 64),
    rounds: int = 12,
) -> list[Row]:
    """Times both encoders at each size of a batch, in every runtime that is installed.

    Args:
        config: its towers are taken, with random weights.
        words: size of the vocabulary.
        batches: B, rows of a call.
        rounds: number of rounds.
    """
    rows = []
    for case, batch in product(_cases(config, words, max(batches)), batches):
        calls = {EXPORT: partial(case.export, case.raw[:batch])}
        calls |= {name: partial(run, case.rows[:batch]) for name, run in case.runs.items()}
        rates = {name: batch / taken for name, taken in interleave(calls, rounds).items()}
        what = f"{case.kind}, {batch} at a time"
        base = f"{what}, {ENCODER}", rates[ENCODER]
        rows += [row(f"{what}, {name}", "a second", rate, *base) for name, rate in rates.items()]
    return rows


def runtimes(encoder: keras.Model, text_tower: keras.Model | None = None) -> dict[str, Run]:
    """Returns the encoder of an export, the same unfolded, and in other runtimes installed.

    TensorFlow's run as TF Serving runs them. The others, OpenVINO (package `openvino`) and ONNX
    Runtime (`onnxruntime` and `tf2onnx`), get the encoder with BatchNorm folded.

    Args:
        encoder: of a trained model.
        text_tower: within it, where it takes sentences: an export leaves empty places out.
    """
    fast = inference(folded(encoder))
    own = fast if text_tower is None else inference(folded(encoder), trimming(text_tower))
    found = {ENCODER: _served(own), UNFOLDED: _served(inference(encoder))}
    if find_spec("openvino"):
        found["OpenVINO"] = _openvino(fast)
    if find_spec("onnxruntime") and find_spec("tf2onnx"):
        found["ONNX Runtime"] = _onnxruntime(fast)
    return found


def _cases(config: Config, words: int, count: int) -> list[Case]:
    model, vocabulary = random_model(config, words, classes=2), random_vocabulary(words)
    tokenizer = CaptionTokenizer(vocabulary, config.text.max_length, lowercase=True)
    with tempfile.TemporaryDirectory() as folder:
        write_archive(ServingModule(model, tokenizer, config.image.resize), Path(folder))
        exports = {name: SessionRunner(folder, name) for name in ("encode_image", "encode_text")}
    draw, size = np.random.default_rng(config.seed), config.image.input_size
    sentences = random_sentences(count, vocabulary)
    return [
        Case(
            "images",
            exports["encode_image"],
            np.array(random_images(count, config.seed), object),
            runtimes(model.image_encoder),
            draw.uniform(0, 255, (count, size, size, 3)).astype(np.float32),
        ),
        Case(
            "sentences",
            exports["encode_text"],
            np.array([sentence.encode() for sentence in sentences], object),
            runtimes(model.text_encoder, model.text_tower),
            tokenizer(tf.constant(sentences)).numpy(),
        ),
    ]


def _served(function: Any) -> SessionRunner:
    with saved(function) as folder:
        return SessionRunner(folder)


def _openvino(function: Any) -> Run:
    import openvino

    # Its default on some processors is bfloat16, a tenth of a percent off.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    with saved(function) as folder:
        network = openvino.compile_model(openvino.convert_model(folder), "CPU", settings)
    return lambda rows: network([rows])[network.output(0)]


def _onnxruntime(function: Any) -> Run:
    import onnxruntime
    import tf2onnx

    network, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=17)
    session = onnxruntime.InferenceSession(
        network.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda rows: session.run(None, {name: rows})[0]
