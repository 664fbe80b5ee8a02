"""What the classifier alone costs, sampled and exact: a step, and a checkpoint of all its rows."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from types import MappingProxyType
from typing import Any

import numpy as np

from benchmarks.acts import classifier_acts
from benchmarks.timing import Report, Row, interleave, peak_mib, row, silent
from tf_dpce.config import Config

_WARM_UP = 2
# Checkpoints that are written of each size; a million rows of 512 numbers are 4 GiB.
_SAVES = 3
# Matrices of the size of the exact classifier that a step holds at once: itself, its momentum,
# its gradient, the same with decay and what the update makes of them.
_HELD = 6
# What a sampled classifier is asked for, and what that is called behind its name.
_ACTS = {"step": "", "move": ": rows and slots moved"}


def measure(
    config: Config,
    progress: Report = silent,
    *,
    sizes: Sequence[int] = (30_000, 100_000, 300_000, 1_000_000),
    dim: int = 512,
    sampled: int = 8_192,
    batch_size: int = 32,
    rounds: int = 8,
) -> list[Row]:
    """Times a step of the sampled classifier at each size, then beside the exact one.

    Beside the step of each size stand the mere moving of the rows and slots of one, and a
    checkpoint of all rows and slots.

    Every classifier has a process of its own, so that its memory can be told. The exact one is
    left out where it does not fit into what is free.

    Args:
        config: whose seed is taken.
        progress: called with the rounds done and their total.
        sizes: C, numbers of classes.
        dim: D, width of a feature.
        sampled: S, classes that a step draws.
        batch_size: B.
        rounds: that are timed.
    """
    case = (dim, batch_size, config.seed)
    total = (1 + len(sizes)) * (_WARM_UP + rounds) + _SAVES
    names = [f"sampled, {size:,}" for size in sizes]
    cases = {name: (size, sampled, *case) for name, size in zip(names, sizes, strict=True)}
    seconds, sampled_rows = _timed(cases, rounds, progress, 0, total, _ACTS, _SAVES)
    rows = [*_step_rows(seconds, names), *sampled_rows]
    for place, size in enumerate(sizes, start=1):
        if 4 * size * (_HELD * dim + 6 * batch_size) > _free_bytes():
            continue
        name = f"exact, {size:,}"
        pair = {name: (size, 0, *case), f"sampled, {size:,}": (size, sampled, *case)}
        before = place * (_WARM_UP + rounds) + _SAVES
        seconds, (memory, moved, *_) = _timed(pair, rounds, progress, before, total)
        ours = f"sampled, {size:,}"
        rows += [row(name, "ms a step", 1000 * seconds[name], ours, 1000 * seconds[ours])]
        rows += [memory, moved]
    return rows


def _step_rows(seconds: dict[str, np.ndarray], names: Sequence[str]) -> list[Row]:
    """Returns rows of the steps, and of what is compared with the step of the same size."""
    rows = []
    for name in names:
        step, base = 1000 * seconds[name], 1000 * seconds[names[0]]
        moving = f"{name}{_ACTS['move']}"
        rows += [
            row(name, "ms a step", step, names[0], base),
            row(moving, "ms a step", 1000 * seconds[moving], name, step),
        ]
    return rows


def _timed(
    cases: dict[str, tuple[int, ...]],
    rounds: int,
    progress: Report,
    before: int,
    total: int,
    acts: Mapping[str, str] = MappingProxyType({"step": ""}),
    saves: int = 0,
) -> tuple[dict[str, np.ndarray], list[Row]]:
    """Returns seconds by name and act, and rows of each one's memory, moves and checkpoints."""
    workers = {name: _Worker(*case) for name, case in cases.items()}
    seconds = interleave(
        {
            f"{name}{label}": partial(worker.ask, act)
            for name, worker in workers.items()
            for act, label in acts.items()
        },
        rounds,
        _WARM_UP,
        progress=lambda done, _: progress(before + done, total),
    )
    rows, kept = [], {name: [] for name in workers}
    for done in range(saves):
        for name, worker in workers.items():
            kept[name].append(worker.ask("save"))
        progress(before + _WARM_UP + rounds + done + 1, total)
    for name, (size, sampled, dim, batch_size, _) in cases.items():
        # Rows and momentum are read and written once, and so are the logits of both modalities.
        places = sampled + batch_size if sampled else size
        moved = 4 * places * (2 * 2 * dim + 2 * 2 * batch_size) / 2**20
        rows.append(row(f"{name}: memory", "MiB", [workers[name].close()]))
        rows.append(row(f"{name}: must move", "MiB a step", [moved]))
        rows += _checkpoint_rows(f"{name}: checkpoint", kept[name]) if saves else []
    return seconds, rows


def _checkpoint_rows(name: str, kept: Sequence[tuple[float, ...]]) -> list[Row]:
    """Returns rows of what `save` returned each time."""
    seconds, mib, held, most = np.transpose(kept)
    return [
        row(name, "s", seconds),
        row(f"{name}, on disk", "MiB", mib),
        row(f"{name}, held before", "MiB", held),
        row(f"{name}, held at most", "MiB", most, f"{name}, held before", held),
    ]


class _Worker:
    """A process that has a classifier and does with it what it is asked for."""

    def __init__(self, *case: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *case), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, act: str) -> Any:
        """Asks for one of `classifier_acts` and returns its answer once it is done."""
        self._connection.send(act)
        return self._connection.recv()

    def close(self) -> float:
        """Ends the process; returns the most MiB that its steps held, beyond what it began with."""
        self._connection.send("end")
        held = self._connection.recv()
        self._process.join()
        return held


def _serve(connection: Connection, *case: int) -> None:
    before = peak_mib()
    calls, saved = classifier_acts(*case), False
    while (act := connection.recv()) != "end":
        saved = saved or act == "save"
        connection.send(calls[act]())
        if not saved:
            held = peak_mib()
    connection.send(held - before)


def _free_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
