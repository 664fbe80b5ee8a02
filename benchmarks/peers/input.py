"""From files of images to batches, beside PyTorch's DataLoader with Pillow, and bare decoding."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pairs import CORES, IMAGES, Pair, Side, Work
from benchmarks.peers.files import find_files, write_files, write_table

_BATCH, _SIZE = 64, 224


def pairs(images: Path | None) -> list[Pair]:
    """Returns the pairs of prepared shards, cropped and mirrored, and of files, as they are."""
    settings = {"images": images and str(images), "count": IMAGES}
    cases = {"shards, cropped and mirrored": "shards", "files, the centred square": "files"}
    return [_pair(case, kind, settings) for case, kind in cases.items()]


def _pair(case: str, kind: str, settings: dict[str, Any]) -> Pair:
    peers = (
        Side(
            "DataLoader with Pillow, two workers",
            "benchmarks.peers.torch_input:loader",
            {"augment": kind == "shards"},
            ("torch",),
            goal=1.5,
        ),
        Side("libjpeg-turbo, decoding alone", f"{__name__}:decode", {}, ("simplejpeg",), goal=0.8),
    )
    # Draws, decoders and filters differ; the mean of all pixels hardly does.
    ours = Side("ours", f"{__name__}:{kind}", settings)
    return Pair(case, "images a second", ours, peers, 0.03, rounds=5, warm_up=1)


def shards(folder: Path, images: str | None, count: int) -> Work:
    """Opens an epoch of training batches from prepared shards."""
    from tf_dpce.config import from_dict, preset_values
    from tf_dpce.data.index_shuffle import IndexShuffle
    from tf_dpce.data.input_pipeline import training_batches
    from tf_dpce.data.manifest import Manifest
    from tf_dpce.data.prepare import prepare
    from tf_dpce.datasets.table import read_table
    from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

    write_files(folder, images, count)
    items = read_table(write_table(folder), folder / "images")
    words = prepare(items, folder / "data", source="table", workers=CORES).words
    config = from_dict(preset_values("flickr8k_mobilenet"))
    tokenizer = CaptionTokenizer(words, config.text.max_length, lowercase=True)
    order = IndexShuffle(0, Manifest.load(folder / "data").splits["train"].images, _BATCH)
    batches = training_batches(
        folder / "data", tokenizer, config.image, config.text, order, 0, order.steps_per_epoch
    )
    means = _means(batch["image"].numpy() for batch in batches)
    return Work(lambda: _drain(batches), means, _BATCH * order.steps_per_epoch)


def files(folder: Path, images: str | None, count: int) -> Work:
    """Opens a pass over the files of a table, as `load_pairs` has it for a script of one's own."""
    from tf_dpce.data.pairs import load_pairs

    write_files(folder, images, count)
    batches = load_pairs(write_table(folder), folder / "images").train.image_batches(_SIZE, _BATCH)
    total = sum(len(batch["instance"]) for batch in batches)
    return Work(lambda: _drain(batches), _means(b["image"].numpy() for b in batches), total)


def decode(folder: Path) -> Work:
    """Opens the decoding of the same files, which lie in memory, by two threads."""
    from simplejpeg import decode_jpeg

    contents = [path.read_bytes() for path in find_files(folder)]
    pool = ThreadPoolExecutor(CORES)

    def call() -> None:
        for _ in pool.map(lambda data: decode_jpeg(data).shape, contents):
            pass

    return Work(call, None, len(contents))


def _means(batches: Iterable[np.ndarray]) -> np.ndarray:
    return np.mean([batch.mean(axis=(0, 1, 2)) for batch in batches], axis=0)


def _drain(batches: Any) -> None:
    for batch in batches:
        batch["image"].numpy()
