"""Arms in turn: who runs when, what is counted, and what the figures of the rounds become."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.timing import Ratio, Row, interleave, peak_memory, row


class Clock:
    """Stands still but for the work that arms do; keeps who worked, in turn."""

    def __init__(self) -> None:
        self.now = 0.0
        self.worked: list[str] = []

    def __call__(self) -> float:
        return self.now

    def arm(self, name: str, *seconds: float) -> Callable[[], None]:
        """An arm that takes these times, one a round."""
        left = list(seconds)

        def work() -> None:
            self.worked.append(name)
            self.now += left.pop(0)

        return work


def test_seconds_are_the_arms_own_without_the_warm_up():
    clock = Clock()
    arms = {"a": clock.arm("a", 9, 1, 2, 3), "b": clock.arm("b", 8, 4, 5, 6)}
    found = interleave(arms, rounds=3, clock=clock)
    assert {name: values.tolist() for name, values in found.items()} == {
        "a": [1, 2, 3],
        "b": [4, 5, 6],
    }


def test_arms_take_turns_and_every_second_round_runs_backwards():
    clock = Clock()
    arms = {name: clock.arm(name, *[1] * 4) for name in "abc"}
    interleave(arms, rounds=3, warm_up=1, clock=clock)
    assert "".join(clock.worked) == "abc" + "cba" + "abc" + "cba"


def test_a_machine_that_slows_down_changes_no_ratio():
    clock = Clock()
    # From round to round everything takes twice as long; b always takes three times what a does.
    arms = {"a": clock.arm("a", 1, 1, 2, 4, 8), "b": clock.arm("b", 3, 3, 6, 12, 24)}
    found = interleave(arms, rounds=4, clock=clock)
    slow = row("b", "s", found["b"], "a", found["a"])
    # The median of 3, 6, 12, 24 is 9.
    assert slow == Row("b", "s", 9, 3, 24, Ratio("a", 3, 3, 3))
    assert row("a", "s", found["a"], "a", found["a"]).ratio == Ratio("a", 1, 1, 1)


def test_a_row_has_the_middle_and_both_ends():
    assert row("a", "ms", np.array([5.0, 1.0, 3.0])) == Row("a", "ms", 3, 1, 5)


def test_the_real_clock_runs():
    found = interleave({"sum": lambda: sum(range(10_000))}, rounds=3)
    assert found["sum"].shape == (3,) and (found["sum"] > 0).all()


def test_the_peak_of_memory_is_at_least_what_is_held_now():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    held = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    # The kernel counts each thread's pages a little late.
    assert peak_memory().median >= held - 2 > 0


@pytest.mark.parametrize("rounds", [1, 2])
def test_even_one_round_has_a_median(rounds: int):
    clock = Clock()
    (values,) = interleave({"a": clock.arm("a", 7, 7, 7)}, rounds, clock=clock).values()
    assert row("a", "s", values) == Row("a", "s", 7, 7, 7)


def test_the_peak_of_memory_is_no_part_of_the_parents():
    held = np.ones(50_000_000)  # 381 MiB
    program = "from benchmarks.timing import peak_mib; print(peak_mib())"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert float(answer.stdout) < held.nbytes / 2**20
