"""Epochs by the clock: the same for the same work, and as many as the minutes hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tf_dpce.ablations.arms import Question, trained_stages
from tf_dpce.ablations.times import decide_epochs, work_of


def arms(*measured: tuple[str, float]) -> dict[str, dict[str, Any]]:
    """Arms of one stage of ten steps, by what they do and what a step of it took."""
    return {
        str(place): {
            "timing": [{"stage": 1, "work": work, "measured": seconds, "steps_per_epoch": 10}]
        }
        for place, (work, seconds) in enumerate(measured)
    }


def epochs(entries: dict[str, dict[str, Any]]) -> list[int]:
    return [part["epochs"] for entry in entries.values() for part in entry["timing"]]


def test_a_machine_that_was_slow_for_a_moment_gives_no_arm_fewer_epochs():
    entries = arms(("ranking", 0.1), ("ranking", 0.2), ("ranking", 0.11), ("softmax", 0.3))
    decide_epochs(entries, minutes=1)
    # The median of ranking is 0.11: an epoch takes 1.1 seconds, and 54 of them 59.4; of softmax 3.
    assert epochs(entries) == [54, 54, 54, 20]
    assert [e["timing"][0]["measured"] for e in entries.values()] == [0.1, 0.2, 0.11, 0.3]
    for entry, seconds in zip(entries.values(), (0.11, 0.11, 0.11, 0.3), strict=True):
        assert entry["timing"][0]["seconds_per_step"] == pytest.approx(seconds)


def test_stages_share_the_minutes_of_their_arm_and_each_has_an_epoch():
    entries = arms(("ranking", 0.1), ("softmax", 90.0))
    entries["0"]["timing"] += [{**entries["0"]["timing"][0], "stage": 2}]
    decide_epochs(entries, minutes=1)
    # Half a minute for each stage of 1 second an epoch; 900 seconds do not fit into one minute.
    assert epochs(entries) == [30, 30, 1]


def test_the_same_loss_is_the_same_work_wherever_it_stands():
    question = Question("objective")
    configs = {arm.name: question.config(arm) for arm in question.arms()}
    data = Path("flickr8k")
    work = {
        (name, stage): work_of(config, stage, data)
        for name, config in configs.items()
        for stage in trained_stages(config)
    }
    assert work["ranking", 1] == work["ranking_then_softmax", 1] == work["softmax_then_ranking", 2]
    # instance, ranking, its hardest, both, softmax, softmax and instance, and the recipe's second.
    assert len(set(work.values())) == 7
    assert work_of(configs["ranking"], 1, Path("scenes")) not in work.values()


def test_another_text_tower_is_other_work():
    question = Question("text_tower")
    configs = [question.config(arm) for arm in question.arms()]
    assert len({work_of(config, 1, Path("flickr8k")) for config in configs}) == 3
