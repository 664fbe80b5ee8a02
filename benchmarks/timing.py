"""Times several calls in turn, so that what slows the machine slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tf_dpce.logging import progress

Calls = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Ratio:
    """How a call compares with another.

    Attributes:
        to: name of the other call.
        median: over the rounds, of the ratios within a round.
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


def interleave(
    calls: Calls, rounds: int, warm_up: int = 1, clock: Callable[[], float] = time.perf_counter
) -> dict[str, np.ndarray]:
    """Makes every call once a round and returns the seconds float64 `[rounds]` that each took.

    Every second round goes backwards, so that no call always follows the same one.

    Args:
        calls: calls by name; they return once their work is done.
        rounds: number of rounds that are timed.
        warm_up: number of rounds before those.
        clock: returns seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with progress("rounds") as display:
        for done in range(warm_up + rounds):
            for name in list(calls)[:: -1 if done % 2 else 1]:
                began = clock()
                calls[name]()
                seconds[name].append(clock() - began)
            display.update(done + 1, warm_up + rounds)
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
    """Returns the most MiB that this process has held since it began."""
    # Not `getrusage`, whose figure begins with what the parent held.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM")


def _spread(values: np.ndarray | Sequence[float]) -> tuple[float, float, float]:
    return float(np.median(values)), float(np.min(values)), float(np.max(values))
