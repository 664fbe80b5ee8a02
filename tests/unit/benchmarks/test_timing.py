"""Calls in turn: who runs when, what is counted, and what the figures of the rounds become."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks import timing
from benchmarks.timing import interleave, row


class Clock:
    """Stands still but for the work that calls do; keeps who worked, in turn."""

    def __init__(self) -> None:
        self.now = 0.0
        self.worked = ""

    def call(self, name: str, *seconds: float) -> Callable[[], None]:
        """A call that takes these times, one a round."""
        left = list(seconds)

        def work() -> None:
            self.worked += name
            self.now += left.pop(0)

        return work


def test_calls_take_turns_and_a_machine_that_slows_down_changes_no_ratio(
    monkeypatch: pytest.MonkeyPatch,
):
    clock = Clock()
    monkeypatch.setattr(timing, "perf_counter", lambda: clock.now)
    # From round to round everything takes twice as long; b always takes three times what a does.
    calls = {"a": clock.call("a", 9, 1, 2, 4, 8), "b": clock.call("b", 8, 3, 6, 12, 24)}
    found = interleave(calls, rounds=4)
    assert {name: values.tolist() for name, values in found.items()} == {
        "a": [1, 2, 4, 8],
        "b": [3, 6, 12, 24],
    }
    # Every second round runs backwards.
    assert clock.worked == "ab" + "ba" + "ab" + "ba" + "ab"
    assert row("b", "s", found["b"], "a", found["a"]) == {
        **{"name": "b", "unit": "s", "median": 9, "low": 3, "high": 24},
        "ratio": {"to": "a", "median": 3, "low": 3, "high": 3},
    }
