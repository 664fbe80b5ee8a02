"""Bulk embedding of JPEG files, beside bare calls of the model with their bytes in memory."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.pairs import Pair, Side, Work
from benchmarks.peers.files import find_files, write_files

if TYPE_CHECKING:
    from tf_dpce.export.encoder import Encoder
    from tf_dpce.search.embedding.embed import Engine

_COUNT, _BATCH = 512, 64
_PRESET = "flickr8k_mobilenet"
# What is open until the process of a side ends: a stack that nobody holds closes at once.
_OPEN = ExitStack()


def pairs(images: Path | None) -> list[Pair]:
    """Returns the one pair."""
    settings = {"images": images and str(images), "count": _COUNT}
    # Else Ray's processes wait for whatever else the machine does, and the others do not.
    niceness = {"RAY_worker_niceness": str(os.nice(0))}
    peers = (
        Side("the model alone, 64 images a call", f"{__name__}:bare", goal=0.95),
        Side("ours, as Ray tasks", f"{__name__}:on_ray", {}, ("ray",), niceness),
    )
    ours = Side("ours", f"{__name__}:ours", settings)
    return [Pair(f"{_COUNT} files", "images a second", ours, peers, 1e-5, rounds=5, warm_up=1)]


def ours(folder: Path, images: str | None, count: int) -> Work:
    """Opens `embed`: reads, embeds and writes shards, records and the list of what is rejected."""
    from benchmarks.peers.export import write_export
    from tf_dpce.search.embedding.embed import in_process

    write_files(folder, images, count)
    write_export(folder, _PRESET)
    return _embedding(folder, in_process(_load(folder)))


def on_ray(folder: Path) -> Work:
    """Opens the same with Ray on this machine, whose processes stay."""
    from tf_dpce.ray_tasks import connected
    from tf_dpce.search.embedding.fingerprint import model_digest
    from tf_dpce.search.embedding.ray_engine import RayEngine

    _OPEN.enter_context(connected())
    version = folder / "model" / "1"
    return _embedding(folder, RayEngine(str(version), model_digest(version)))


def bare(folder: Path) -> Work:
    """Opens calls of the model, without reading and writing files."""
    encoder = _load(folder)
    contents = [path.read_bytes() for path in find_files(folder)]
    batches = [contents[start : start + _BATCH] for start in range(0, len(contents), _BATCH)]

    def call() -> np.ndarray:
        return np.concatenate([encoder.encode_with_status("images", batch)[0] for batch in batches])

    return Work(call, call(), len(contents))


def _load(folder: Path) -> Encoder:
    from tf_dpce.runtimes.load import load

    return load(folder / "model" / "1")


def _embedding(folder: Path, engine: Engine) -> Work:
    from tf_dpce.search.embedding.embed import embed
    from tf_dpce.search.embedding.fingerprint import model_digest
    from tf_dpce.search.embedding.inputs import find_images
    from tf_dpce.search.embedding.store import StoredEmbeddings, StoreManifest

    digest = model_digest(folder / "model" / "1")

    def call() -> np.ndarray:
        with TemporaryDirectory(dir=folder) as out:
            embed(engine, find_images([str(folder / "images")]), out, digest)
            stored = StoredEmbeddings({Path(out): StoreManifest.load(Path(out))}, "images")
            return np.concatenate([*stored.arrays()])

    return Work(call, call(), len(find_files(folder)))
