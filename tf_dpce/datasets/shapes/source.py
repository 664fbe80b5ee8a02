"""Draws scenes into a folder, in several processes, and yields them as other readers do."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from tf_dpce.datasets.listing import SPLITS, Image
from tf_dpce.datasets.shapes.drawing import draw_png
from tf_dpce.datasets.shapes.scene import make_scene
from tf_dpce.errors import UserError
from tf_dpce.logging import progress

MARK = ".drawn"

_MARK_TEXT = "prepare drew these images, and will replace them when it draws here again.\n"
_CHUNK = 50  # scenes that a process draws at a time
# Fewer are drawn sooner than a second process has started.
_FEWEST_FOR_PROCESSES = 1000


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
    folder: Path, seed: int, numbers: dict[str, range], size: int, workers: int = 1
) -> Iterator[Image]:
    """Draws scenes as `NNNNNN.png`, in place of those that were drawn into the folder before.

    The folder is checked at once; drawing begins with the first image that is asked for.

    Args:
        folder: where to draw.
        seed: seed of the series of scenes.
        numbers: the indices of each split, as from `scene_numbers`.
        size: side of the images, in pixels.
        workers: number of processes; images and captions are the same whatever it is. A script
            that asks for several needs the `if __name__ == "__main__":` of `multiprocessing`.

    Returns:
        An image of each scene, whose `image_id` is its index, so that
        `make_scene(seed, int(image_id))` gives it again.

    Raises:
        UserError: the folder holds something that was not drawn.
    """
    folder = folder.resolve()
    if folder.exists() and not (folder / MARK).exists() and any(folder.iterdir()):
        message = f"{folder} holds files that were not drawn: move it, or write elsewhere"
        raise UserError("scenes.folder", message, folder)
    return _drawn(folder, seed, numbers, size, workers)


def _drawn(
    folder: Path, seed: int, numbers: dict[str, range], size: int, workers: int
) -> Iterator[Image]:
    folder.mkdir(parents=True, exist_ok=True)
    # The mark goes first: whenever this process ends, the next one knows whose images these are.
    (folder / MARK).write_text(_MARK_TEXT)
    for path in folder.glob("*.png"):
        path.unlink()
    scenes = [(split, index) for split in SPLITS for index in numbers[split]]
    indices = [index for _, index in scenes]
    chunks = [indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK)]
    several = workers > 1 and len(scenes) >= _FEWEST_FOR_PROCESSES
    with progress("scenes") as display, drawing_map(workers if several else 1) as run:
        captions = chain.from_iterable(run(partial(_draw, folder, seed, size), chunks))
        for done, ((split, index), own) in enumerate(zip(scenes, captions, strict=True), 1):
            name = f"{index:06d}"
            yield Image(name, folder / f"{name}.png", own, split)
            display.update(done, total=len(scenes))


def _draw(folder: Path, seed: int, size: int, indices: list[int]) -> list[tuple[str, ...]]:
    """Draws some scenes and returns the captions of each."""
    scenes = {index: make_scene(seed, index) for index in indices}
    for index, scene in scenes.items():
        (folder / f"{index:06d}.png").write_bytes(draw_png(scene, size))
    return [scene.captions for scene in scenes.values()]


@contextmanager
def drawing_map(workers: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """Yields `map`, or one that keeps its order too but works in several processes.

    They start bare, so that none of them loads TensorFlow, and end with the one that asked.
    """
    if workers == 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_follow_parent)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    # Ctrl-C reaches every process of a terminal: the parent answers it, in one line.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A killed parent closes no queue: its workers would wait for ever, or draw over the next run.
    multiprocessing.parent_process().join()
    os._exit(1)
