"""What bulk embedding takes beyond the calls of the model: in one process, and as Ray tasks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.material import random_images, random_model, random_tokenizer
from benchmarks.timing import Row, interleave, row
from tf_dpce.config import Config
from tf_dpce.export.encoder import Encoder
from tf_dpce.export.publish import write_archive
from tf_dpce.export.serving_module import ServingModule
from tf_dpce.ray_tasks import connected
from tf_dpce.runtimes.load import load
from tf_dpce.search.embedding.embed import Engine, embed, in_process
from tf_dpce.search.embedding.fingerprint import model_digest
from tf_dpce.search.embedding.inputs import find_images
from tf_dpce.search.embedding.ray_engine import RayEngine

BARE = "the model alone, 64 images a call"
_BATCH = 64
_WORDS = 100


def measure(
    config: Config, *, images: int = 512, shard_size: int = 512, rounds: int = 4
) -> list[Row]:
    """Times the embedding of JPEG files, beside calls of the model with their bytes in memory.

    Ray runs on this machine, its processes started and the model loaded before.

    Args:
        config: its towers are taken, with random weights.
        images: number of files.
        shard_size: number of images in a shard.
        rounds: number of rounds.
    """
    # Else Ray's processes wait for whatever else the machine does, and this one does not.
    os.environ.setdefault("RAY_worker_niceness", str(os.nice(0)))
    files = random_images(images, config.seed)
    with tempfile.TemporaryDirectory() as name, connected():
        folder = Path(name)
        model, source = folder / "model" / "1", folder / "images"
        module = ServingModule(
            random_model(config, _WORDS, classes=2),
            random_tokenizer(config, _WORDS),
            config.image.resize,
        )
        write_archive(module, model)
        source.mkdir()
        for number, contents in enumerate(files):
            (source / f"{number:05d}.jpg").write_bytes(contents)
        encoder, digest = load(model), model_digest(model)
        run = partial(_embed, source, digest, shard_size)
        calls = {
            BARE: partial(_bare, encoder, files),
            "embed, one process": partial(run, in_process(encoder)),
            "embed, Ray": partial(run, RayEngine(str(model), digest)),
        }
        rates = {name: images / taken for name, taken in interleave(calls, rounds).items()}
    return [row(name, "images a second", rate, BARE, rates[BARE]) for name, rate in rates.items()]


def _bare(encoder: Encoder, files: Sequence[bytes]) -> None:
    for start in range(0, len(files), _BATCH):
        encoder.encode_with_status("images", files[start : start + _BATCH])


def _embed(source: Path, digest: str, shard_size: int, engine: Engine) -> None:
    with tempfile.TemporaryDirectory(dir=source.parent) as out:
        embed(engine, find_images([str(source)]), out, digest, shard_size)
