"""What LiteRT's precisions cost and save: size, time and recall of a trained run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import get_args

import numpy as np

from benchmarks.timing import Row, interleave, row
from tf_dpce.config import Config
from tf_dpce.data.input_pipeline import ALL, Batches, evaluation_captions, evaluation_images
from tf_dpce.evaluation.metrics import retrieval_metrics
from tf_dpce.export.serving_module import ServingModule
from tf_dpce.logging import tracked
from tf_dpce.models.fuse_batch_norm import folded
from tf_dpce.runtimes import Precision
from tf_dpce.runtimes.engines import Engine, open_engine
from tf_dpce.runtimes.examples import FITTED, HELD_OUT, first_examples
from tf_dpce.runtimes.litert import write_litert
from tf_dpce.runtimes.manifest import IMAGE, TEXT
from tf_dpce.runtimes.write import FITTED_IMAGES
from tf_dpce.training.run_folder import load_run

BASE = "float32"
_BATCH = 64


def measure(
    config: Config, *, run: Path, data: Path, images: int = ALL, rounds: int = 60
) -> list[Row]:
    """Writes both encoders of a run in every precision, times them and scores their embeddings.

    Args:
        config: not needed; the run has its own.
        run: the run.
        data: the prepared data that it was trained on.
        images: how many images of the validation split are embedded, with all their captions.
        rounds: number of rounds; each embeds one image and one caption in every precision.
    """
    trained = load_run(run)
    module = ServingModule(trained.model, trained.tokenizer, trained.config.image.resize)
    fitted = first_examples(module, data, FITTED, FITTED_IMAGES)
    networks = {IMAGE: trained.model.image_encoder, TEXT: trained.model.text_encoder}
    engines: dict[str, dict[str, Engine]] = {}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, network in networks.items():
            files = {each: Path(folder, f"{kind}-{each}.tflite") for each in get_args(Precision)}
            for each, path in files.items():
                write_litert(folded(network), path, each, fitted[kind])
            sizes = {each: [path.stat().st_size / 2**20] for each, path in files.items()}
            rows += _rows(f"{kind} encoder", "MiB", sizes)
            engines[kind] = {each: open_engine("litert", path) for each, path in files.items()}
    for kind, runs in engines.items():
        seconds = interleave(_one_at_a_time(runs, fitted[kind]), rounds, warm_up=5)
        rows += _rows(f"one {kind}", "ms", {each: 1000 * taken for each, taken in seconds.items()})
    return rows + _recall(module, data, images, engines)


def _rows(what: str, unit: str, figures: dict[str, np.ndarray | list[float]]) -> list[Row]:
    name = "{}, {}".format
    base = name(what, BASE), figures[BASE]
    return [row(name(what, each), unit, values, *base) for each, values in figures.items()]


def _one_at_a_time(
    runs: dict[str, Engine], examples: np.ndarray
) -> dict[str, Callable[[], object]]:
    """Returns calls that embed one example after the other."""

    def call(run: Engine, rows: cycle[np.ndarray]) -> None:
        run(next(rows)[np.newaxis])

    return {each: partial(call, run, cycle(examples)) for each, run in runs.items()}


def _recall(
    module: ServingModule, data: Path, images: int, engines: dict[str, dict[str, Engine]]
) -> list[Row]:
    """Embeds the validation split in every precision, and scores it."""
    size, resize = module.image_size, module.resize
    batches = {
        IMAGE: evaluation_images(data, HELD_OUT, size, _BATCH, resize, images),
        TEXT: evaluation_captions(data, HELD_OUT, module.tokenizer, _BATCH, images),
    }
    embedded = {kind: _embedded(engines[kind], each, kind) for kind, each in batches.items()}
    scores = {}
    for each in get_args(Precision):
        (vectors, keys) = zip(*(embedded[kind][each] for kind in (IMAGE, TEXT)), strict=True)
        scores[each] = [retrieval_metrics(*vectors, *keys)["rsum"]]
    return _rows(f"rsum of {HELD_OUT}", "%", scores)


def _embedded(
    runs: dict[str, Engine], batches: Batches, kind: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns embeddings `[N, D]` and instances `[N]` in every precision."""
    rows, instances = [], []
    for batch in tracked(batches, f"batches of {HELD_OUT}, {kind}"):
        rows.append({each: run(np.asarray(batch[kind])) for each, run in runs.items()})
        instances.append(np.asarray(batch["instance"]))
    keys = np.concatenate(instances)
    return {each: (np.concatenate([row[each] for row in rows]), keys) for each in runs}
