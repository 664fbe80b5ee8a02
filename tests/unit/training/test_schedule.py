"""The learning rate over a stage."""

from __future__ import annotations

import pytest

from tf_dpce.config import StageConfig
from tf_dpce.training.optimizers import StageSchedule, stage_schedule


def rates(schedule: StageSchedule, *steps: int) -> list[float]:
    return [float(schedule(step)) for step in steps]


def test_the_rate_falls_to_a_tenth_at_each_of_the_decay_epochs_and_else_stays():
    # The recipe's stage II for Flickr, in small: 0.1 for 40 epochs, then 0.01 for 20.
    stage = StageConfig(epochs=60, learning_rate=0.1, schedule="steps", decay_epochs=(40, 50))
    schedule = stage_schedule(stage, steps_per_epoch=3)
    assert rates(schedule, 0, 60, 119) == pytest.approx([0.1] * 3)
    assert rates(schedule, 120, 149) == pytest.approx([0.01] * 2)
    assert rates(schedule, 150, 179) == pytest.approx([0.001] * 2)
    constant = stage_schedule(StageConfig(epochs=5, learning_rate=0.1), steps_per_epoch=10)
    assert rates(constant, 0, 25, 49, 500) == pytest.approx([0.1] * 4)


def test_half_a_cosine_from_the_top_to_zero():
    stage = StageConfig(epochs=4, learning_rate=0.2, schedule="cosine")
    schedule = stage_schedule(stage, steps_per_epoch=9)
    # Of 36 steps: cos 0 = 1, cos 60 degrees = 1/2, cos 90 = 0, cos 120 = -1/2, cos 180 = -1.
    expected = [0.2, 0.15, 0.1, 0.05, 0.0, 0.0]
    assert rates(schedule, 0, 12, 18, 24, 36, 99) == pytest.approx(expected, abs=1e-7)
    falling = rates(schedule, *range(37))
    assert falling == sorted(falling, reverse=True)


def test_the_rise_is_linear_and_ends_at_the_top():
    for kind in ("steps", "cosine"):
        stage = StageConfig(epochs=4, learning_rate=0.5, schedule=kind, warmup_epochs=0.4)
        schedule = stage_schedule(stage, steps_per_epoch=10)
        # 4 steps of rise: fifths of the top, which step 4 reaches.
        assert rates(schedule, 0, 1, 2, 3, 4) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    # The cosine falls over what the rise leaves.
    schedule = StageSchedule(1.0, total_steps=24, warmup_steps=4)
    assert rates(schedule, 4, 14, 24) == pytest.approx([1.0, 0.5, 0.0], abs=1e-6)
