"""What exported encoders encode in a second, beside other runtimes with the same weights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.material import random_captions, random_images, random_model, random_tokenizer
from benchmarks.timing import Row, interleave, row
from tf_dpce.config import Config
from tf_dpce.evaluation.embed import inference
from tf_dpce.export.publish import write_archive
from tf_dpce.export.serving_module import ServingModule
from tf_dpce.models.fuse_batch_norm import folded
from tf_dpce.models.trimming import trimming
from tf_dpce.runtimes.engines import ENGINES, open_engine
from tf_dpce.runtimes.write import write_encoder

EXPORT = "export, from raw input"
ENCODER = "its encoder alone"
UNFOLDED = "the same, BatchNorm apart"

Run = Callable[[np.ndarray], np.ndarray]


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
    model, tokenizer = random_model(config, words, classes=2), random_tokenizer(config, words)
    count, side = max(batches), config.image.input_size
    with tempfile.TemporaryDirectory() as folder:
        write_archive(ServingModule(model, tokenizer, config.image.resize), Path(folder))
        exports = [session_run(folder, name) for name in ("encode_image", "encode_text")]
    pixels = np.random.default_rng(config.seed).uniform(0, 255, (count, side, side, 3))
    captions = random_captions(count, words)
    cases = {
        "images": (
            random_images(count, config.seed),
            runtimes(model.image_encoder),
            pixels.astype(np.float32),
        ),
        "captions": (
            [caption.encode() for caption in captions],
            runtimes(model.text_encoder, model.text_tower),
            tokenizer(tf.constant(captions)).numpy(),
        ),
    }
    rows = []
    for export, (kind, (raw, runs, inputs)) in zip(exports, cases.items(), strict=True):
        for batch in batches:
            calls = {EXPORT: partial(export, np.array(raw[:batch], object))}
            calls |= {name: partial(run, inputs[:batch]) for name, run in runs.items()}
            rates = {name: batch / taken for name, taken in interleave(calls, rounds).items()}
            what = f"{kind}, {batch} at a time"
            base = f"{what}, {ENCODER}", rates[ENCODER]
            rows += [row(f"{what}, {name}", "a second", r, *base) for name, r in rates.items()]
    return rows


def runtimes(encoder: keras.Model, text_tower: keras.Model | None = None) -> dict[str, Run]:
    """Returns the encoder of an export, the same unfolded, and in other runtimes installed.

    TensorFlow's run as TF Serving runs them. The others get the encoder with BatchNorm folded, as
    `export --format` writes it.

    Args:
        encoder: of a trained model.
        text_tower: within it, if it takes captions: an export leaves empty positions out.
    """
    fast = inference(folded(encoder))
    own = fast if text_tower is None else inference(folded(encoder), trimming(text_tower))
    found = {}
    for name, function in ((ENCODER, own), (UNFOLDED, inference(encoder))):
        with saved(function) as folder:
            found[name] = session_run(folder)
    for name, kind in ENGINES.items():
        if all(map(find_spec, (kind.module, *kind.writers))):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, f"encoder{kind.suffixes[0]}")
                write_encoder(folded(encoder), name, path)
                found[kind.title] = open_engine(name, path)
    return found


def session_run(folder: str, endpoint: str = "serving_default") -> Run:
    """Returns an endpoint of a SavedModel in a Session, without the request around it.

    Args:
        folder: of the SavedModel.
        endpoint: name of a signature with one input; its output `embedding`, or its only one, is
            what is asked for.
    """
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], folder)
    signature = graph.signature_def[endpoint]
    (given,) = signature.inputs.values()
    wanted = signature.outputs.get("embedding") or next(iter(signature.outputs.values()))
    return session.make_callable(wanted.name, [given.name])


@contextmanager
def saved(function: Any) -> Iterator[str]:
    """Yields a folder with a SavedModel of one `tf.function` that has a signature."""
    module = tf.Module()
    module.function = function
    concrete = function.get_concrete_function()
    # What the function holds by weak references only.
    module.weights = list(concrete.graph.variables)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=concrete)
        yield folder
