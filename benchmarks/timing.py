"""Times several calls in turn, so that what slows the machine slows all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.memory import peak_mib
from tf_dpce.logging import tracked

# A measured figure: `name`, `unit`, and over the rounds `median`, `low` (the smallest) and `high`.
# If it is compared with another figure of the same run, `ratio` has the name of that figure, `to`,
# and the median, low and high of the ratios within a round.
Row = dict[str, Any]


def interleave(
    calls: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1
) -> dict[str, np.ndarray]:
    """Makes every call once a round and returns the seconds float64 `[rounds]` that each took.

    Every second round goes backwards, so that no call always follows the same one.

    Args:
        calls: calls by name; they return once their work is done.
        rounds: number of rounds that are timed.
        warm_up: number of rounds before those.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    count = warm_up + rounds
    for done in tracked(range(count), "rounds", count, transient=False):
        for name in list(calls)[:: -1 if done % 2 else 1]:
            began = perf_counter()
            calls[name]()
            seconds[name].append(perf_counter() - began)
    return {name: np.array(values[warm_up:]) for name, values in seconds.items()}


def shown(value: float) -> str:
    """Returns a figure as tables write it, with four digits or in whole numbers."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


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
    found = {"name": name, "unit": unit, **spread(values)}
    if base is not None:
        found["ratio"] = {"to": to, **spread(np.asarray(values) / base)}
    return found


def step_rows(seconds: Mapping[str, np.ndarray]) -> list[Row]:
    """Returns a row for each call that makes a step, compared with the first."""
    first = next(iter(seconds))
    return [
        row(name, "ms a step", 1000 * taken, first, 1000 * seconds[first])
        for name, taken in seconds.items()
    ]


def peak_memory() -> Row:
    """Returns the most memory that this process has held since it began."""
    return row("memory of the process, peak", "MiB", [peak_mib()])


def spread(values: np.ndarray | Sequence[float]) -> dict[str, float]:
    """Returns the median of figures, the smallest and the largest."""
    return {
        "median": float(np.median(values)),
        "low": float(np.min(values)),
        "high": float(np.max(values)),
    }
