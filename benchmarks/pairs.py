"""Times ours beside what a user would pick: `python -m benchmarks.pairs --names NAME...`.

A pair is one piece of work that several sides do: ours, and peers. Each side has a process of its
own, in which its libraries meet no others. All use the same two cores and take turns, so that only
one works at a time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, get_args
from unittest.mock import patch

import numpy as np

from benchmarks.memory import watched_peaks
from benchmarks.timing import Row, interleave, row, spread
from pipelines._verb import options_verb, say_files
from tf_dpce.errors import UserError
from tf_dpce.files import check_writable, write_json
from tf_dpce.logging import logger
from tf_dpce.machine import circumstances

RESULTS = Path(__file__).parent / "results"
CORES = 2
# Files that a pair takes at most.
IMAGES = 1_600
# Whose pairs there are: `benchmarks.peers.NAME` has the function `pairs`.
Name = Literal[
    "train", "stage2", "input", "encode", "metrics", "prepare", "search", "embed", "start"
]
NAMES = get_args(Name)
PACKAGES = ("torch", "jax", "onnxruntime", "openvino", "faiss-cpu", "hnswlib", "simplejpeg")


class Work(NamedTuple):
    """What a side does in a round.

    Attributes:
        call: does it, and returns once it is done.
        answer: what shows that it is the same work: numbers of any shape, or None for a limit that
            does only a part of it.
        count: units that a call does.
    """

    call: Callable[[], object]
    answer: Any
    count: float


@dataclass(frozen=True)
class Side:
    """Who does the work of a pair.

    Attributes:
        name: such as "PyTorch".
        opener: MODULE:FUNCTION. It is called with a folder that all sides
            of the pair share, ours first, and returns a `Work`.
        settings: its further arguments.
        needs: modules and programs, without which the side is left out.
        environment: variables of its process.
        goal: what our speed over this side's shall be at least; None sets no goal.
    """

    name: str
    opener: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    goal: float | None = None


@dataclass(frozen=True)
class Pair:
    """One piece of work, and who does it.

    Attributes:
        case: such as "batch 64".
        unit: what is counted in a second.
        ours: our side.
        peers: the others.
        tolerance: largest relative difference of an answer from ours.
        rounds: number of rounds that are timed.
        warm_up: number of rounds before those.
    """

    case: str
    unit: str
    ours: Side
    peers: tuple[Side, ...]
    tolerance: float = 1e-3
    rounds: int = 7
    warm_up: int = 2


def run(names: list[Name] | None = None, out: Path = RESULTS, images: Path | None = None) -> None:
    """Times pairs, ours beside peers, and writes a JSON file for each name.

    Args:
        names: train, stage2, input, encode, metrics, prepare, search, embed or start (default: all
            of them).
        out: folder of the JSON files.
        images: folder of JPEG files that take the place of drawn ones.
    """
    check_writable(out)
    if images and (count := len(list(images.glob("*.jp*g")))) < IMAGES:
        message = f"{images} has {count} JPEG files, of which pairs take {IMAGES:,}: give another"
        raise UserError("benchmark.images", message, images)
    out.mkdir(parents=True, exist_ok=True)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:CORES])
    try:
        for name in names or NAMES:
            pairs = import_module(f"benchmarks.peers.{name}").pairs(images)
            found = {pair.case: measure(name, pair) for pair in pairs}
            path = out / f"{name}.json"
            write_json(path, {**heading(name, images), "cases": found})
            say_files([path])
    finally:
        os.sched_setaffinity(0, cores)


def measure(name: str, pair: Pair) -> dict[str, Any]:
    """Times the sides of a pair in turn.

    Args:
        name: of the pair, for messages.
        pair: what is timed.

    Returns:
        `rows`, ours first, each with its rate, the peak memory of its process and of what that
        started, and for a peer `speed`, the ratio of our rate to its rate in each round, above 1 if
        we are faster; and `left_out`, the reasons by the names of the sides that this machine
        cannot run.

    Raises:
        UserError: a side does other work than ours.
    """
    sides, left_out = _split(pair.peers)
    for side, reason in left_out.items():
        logger.warning(f"{name}, {pair.case}: {side} is left out: {reason}")
    with TemporaryDirectory() as folder, ExitStack() as stack:
        opened = {
            side.name: stack.enter_context(_process(side, folder)) for side in (pair.ours, *sides)
        }
        works = {side: _in(process, _opened) for side, process in opened.items()}
        differences = _differences(name, pair, {side: work[0] for side, work in works.items()})
        seconds, peaks = _timed(pair, opened)
    rates = {side: works[side][1] / taken for side, taken in seconds.items()}
    rows: list[Row] = [
        {**row(side, pair.unit, rate), "seconds": spread(seconds[side]), "memory": peaks[side]}
        for side, rate in rates.items()
    ]
    for side, found in zip(sides, rows[1:], strict=True):
        speed = spread(rates[pair.ours.name] / rates[side.name])
        found |= {"speed": speed, "goal": side.goal, "difference": differences.get(side.name)}
    return {"rounds": pair.rounds, "rows": rows, "left_out": left_out}


def _timed(
    pair: Pair, opened: Mapping[str, ProcessPoolExecutor]
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Returns the seconds of the rounds of each side, and its peak of memory in MiB."""
    numbers = {side: _in(process, os.getpid) for side, process in opened.items()}
    calls = {side: partial(_in, process, _call) for side, process in opened.items()}
    with watched_peaks(numbers) as peaks:
        seconds = interleave(calls, pair.rounds, pair.warm_up)
    return seconds, peaks


def _split(sides: Sequence[Side]) -> tuple[list[Side], dict[str, str]]:
    """Returns the sides that this machine can run, and why not by the names of the others."""
    lacking = {side.name: [need for need in side.needs if not _found(need)] for side in sides}
    left_out = {name: f"{', '.join(needs)} missing" for name, needs in lacking.items() if needs}
    return [side for side in sides if side.name not in left_out], left_out


def _found(need: str) -> bool:
    return bool(which(need) or find_spec(need))


def _differences(name: str, pair: Pair, answers: Mapping[str, Any]) -> dict[str, float]:
    """Returns how far the answers lie from ours, relative to the largest number of ours."""
    found = {}
    ours = np.asarray(answers[pair.ours.name], np.float64)
    for side, answer in answers.items():
        if answer is not None and side != pair.ours.name:
            gap = np.max(np.abs(np.asarray(answer, np.float64) - ours)) / np.max(np.abs(ours))
            if not gap <= pair.tolerance:
                message = (
                    f"{name}, {pair.case}: {side} does other work, its answer is {gap:.2g} off"
                )
                raise UserError("benchmark.differs", message)
            found[side] = float(gap)
    return found


def heading(name: str, images: Path | None) -> dict[str, Any]:
    """Returns what a measurement belongs to: name, date, commit, machine, versions and images."""
    found = {"name": name, "images": "of a folder" if images else "drawn", **circumstances()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found["machine"][package] = version(package)
    return found


# --- in the process of a side ---------------------------------------------------------------------

_own: dict[str, Work] = {}


@contextmanager
def _process(side: Side, folder: str) -> Iterator[ProcessPoolExecutor]:
    """Yields the process of a side, in which its work is open."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        # It starts with its first call, and takes the environment that there is then.
        with patch.dict(os.environ, side.environment):
            _in(process, partial(_open, side.opener, Path(folder), dict(side.settings)))
        yield process


def _in(process: ProcessPoolExecutor, function: Callable[[], Any]) -> Any:
    return process.submit(function).result()


def _open(opener: str, folder: Path, settings: dict[str, Any]) -> None:
    module, _, function = opener.partition(":")
    try:
        _own["work"] = getattr(import_module(module), function)(folder, **settings)
    except UserError as error:
        # It cannot be sent to another process.
        raise RuntimeError(f"{opener}: {error.message} [{error.code}]") from error


def _opened() -> tuple[Any, float]:
    return _own["work"].answer, _own["work"].count


def _call() -> None:
    _own["work"].call()


build_parser, main = options_verb("benchmarks.pairs", run)


if __name__ == "__main__":
    sys.exit(main())
