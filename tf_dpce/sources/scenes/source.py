"""Draws scenes into a folder and yields their pairs, as other readers do."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tf_dpce.sources.pair import SPLITS, Pair
from tf_dpce.sources.scenes.drawing import draw_png
from tf_dpce.sources.scenes.scene import make_scene


def scene_numbers(train: int, val: int, test: int) -> dict[str, range]:
    """Returns the indices of each split.

    The test scenes come first, so that they stay the same however many train.

    Example:
        >>> scene_numbers(8, 2, 3)
        {'train': range(5, 13), 'val': range(3, 5), 'test': range(0, 3)}
    """
    return {
        "train": range(test + val, test + val + train),
        "val": range(test, test + val),
        "test": range(test),
    }


def draw_scenes(
    folder: Path,
    seed: int,
    numbers: dict[str, range],
    size: int,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Pair]:
    """Draws scenes as `NNNNNN.png`, in place of all that the folder held.

    Args:
        folder: where to draw.
        seed: of the series of scenes.
        numbers: the indices of each split, as from `scene_numbers`.
        size: side of the pictures, in pixels.
        progress: called with the scenes drawn and their total.

    Yields:
        The pairs of each scene, whose `image_id` is its index, so that
        `make_scene(seed, int(image_id))` gives it again.
    """
    folder = folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    total = sum(len(numbers[split]) for split in SPLITS)
    done = 0
    for split in SPLITS:
        for index in numbers[split]:
            scene = make_scene(seed, index)
            name = f"{index:06d}"
            path = folder / f"{name}.png"
            path.write_bytes(draw_png(scene, size))
            yield from (Pair(name, path, caption, split, name) for caption in scene.captions)
            done += 1
            if progress:
                progress(done, total)
