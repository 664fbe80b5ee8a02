"""A few drawn scenes, prepared: real data for the tests of pipeline and training."""

from __future__ import annotations

import shutil
from pathlib import Path

from tf_dpce.data.manifest import Manifest
from tf_dpce.data.prepare import prepare
from tf_dpce.datasets.shapes.source import draw_scenes, scene_numbers

SIZE = 32


def copy_data(scenes: Path, folder: Path) -> Path:
    """Copies prepared scenes without the features that runs have cached there."""
    return shutil.copytree(scenes, folder, ignore=shutil.ignore_patterns("features", "scenes"))


def prepare_scenes(folder: Path, train: int = 48, val: int = 12, test: int = 12) -> Manifest:
    """Prepared data of scenes, in several shards a split."""
    numbers = scene_numbers(train, val, test)
    images = list(draw_scenes(folder / "scenes", 0, numbers, SIZE))
    return prepare(
        images, folder, source="scenes", lowercase=True, workers=2, shard_bytes=10_000
    ).manifest
