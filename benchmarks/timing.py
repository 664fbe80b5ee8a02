"""Arms timed in turn, round by round, so that what slows the machine slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Arms = Mapping[str, Callable[[], object]]
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Ratio:
    """How an arm compares with another one.

    Attributes:
        to: name of the other arm.
        median: over the rounds, of the quotients within a round.
        low: the smallest.
        high: the largest.
    """

    to: str
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One measured figure.

    Attributes:
        name: what was measured.
        unit: of the figures.
        median: over the rounds.
        low: the smallest.
        high: the largest.
        ratio: to another figure of the same run, where there is one to compare with.
    """

    name: str
    unit: str
    median: float
    low: float
    high: float
    ratio: Ratio | None = None


def silent(done: int, total: int) -> None:
    """Reports a round to nobody."""


def interleave(
    arms: Arms,
    rounds: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    progress: Report = silent,
) -> dict[str, np.ndarray]:
    """Runs every arm once a round and returns the seconds float64 `[rounds]` that each took.

    Every second round goes through the arms backwards, so that none always follows the same one.

    Args:
        arms: by name, calls that return once their work is done.
        rounds: that are timed.
        warm_up: rounds before those.
        clock: returns seconds.
        progress: called with the rounds done, warm-up included, and their total.
    """
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for done in range(warm_up + rounds):
        for name in list(arms)[:: -1 if done % 2 else 1]:
            began = clock()
            arms[name]()
            seconds[name].append(clock() - began)
        progress(done + 1, warm_up + rounds)
    return {name: np.array(values[warm_up:]) for name, values in seconds.items()}


def row(
    name: str,
    unit: str,
    values: np.ndarray | Sequence[float],
    to: str = "",
    base: np.ndarray | None = None,
) -> Row:
    """Sums the figures of the rounds up.

    Args:
        name: what was measured.
        unit: of the figures.
        values: `[rounds]`.
        to: name of what they are compared with.
        base: its figures in the same rounds, `[rounds]`; None compares with nothing.
    """
    ratio = None if base is None else Ratio(to, *_spread(np.asarray(values) / base))
    return Row(name, unit, *_spread(values), ratio)


def peak_memory() -> Row:
    """Returns the most memory that this process has held since it began."""
    return row("memory of the process, peak", "MiB", [peak_mib()])


def peak_mib() -> float:
    """Returns the most MiB that this process has held since it began, or since `forget_peak`."""
    # Not `getrusage`, whose figure begins with what the parent held.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM")


def forget_peak() -> float:
    """Begins `peak_mib` anew, and returns the MiB that this process holds now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mib()


def _spread(values: np.ndarray | Sequence[float]) -> tuple[float, float, float]:
    return float(np.median(values)), float(np.min(values)), float(np.max(values))
