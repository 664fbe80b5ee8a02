"""The means of a few steps that curves show, from the running means that Keras logs."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tf_dpce.config import LossConfig, StageConfig
from tf_dpce.monitoring import curves
from tf_dpce.monitoring.curves import Curves

LOSSES = np.array([4.0, 3.0, 2.5, 2.0, 1.0])
RIGHT = np.array([0.0, 0.0, 0.5, 0.25, 1.0])


def logs(done: int) -> dict[str, float]:
    """What Keras logs after some steps of an epoch: means of all of them."""
    names = {"loss": LOSSES, "pair_loss": LOSSES / 2, "image_logits_accuracy": RIGHT}
    return {name: values[:done].mean() for name, values in names.items()}


def stage_curves(**loss: float) -> Curves:
    settings = StageConfig(batch_size=10, loss=LossConfig(**loss))
    return Curves(settings, SimpleNamespace(seconds=0.0))


def test_a_point_is_the_mean_of_the_steps_since_the_one_before():
    found = stage_curves(image_instance=1.0, text_instance=0.0, pair=0.5)
    for _ in range(2):  # an epoch knows nothing of the one before
        found.begin_epoch(0)
        for first, last in ((0, 2), (2, 5)):
            point = found.point(logs(last), last)
            assert point["loss/total"] == pytest.approx(LOSSES[first:last].mean())
            assert point["loss/pair"] == pytest.approx(LOSSES[first:last].mean() / 2)
            assert point["accuracy/image_instance"] == pytest.approx(RIGHT[first:last].mean())
            assert not any("text_instance" in tag for tag in point), "a loss that is turned off"


def test_a_sole_loss_is_shown_without_its_weight():
    found = stage_curves(image_instance=0.0, text_instance=0.0, pair=4.0)
    found.begin_epoch(0)
    # Of a sole loss Keras logs the weighted sum alone.
    assert found.point({"loss": 2.0}, 1)["loss/pair"] == 0.5


def test_an_epoch_that_was_resumed_shows_no_mean_of_steps_that_it_did_not_do():
    found = stage_curves(image_instance=1.0, pair=0.5)
    found.begin_epoch(1)
    assert not any(tag.startswith("loss") for tag in found.point(logs(2), 2))
    assert found.point(logs(4), 4)["loss/total"] == pytest.approx(LOSSES[2:4].mean())


def test_speed_is_that_of_steps_alone(monkeypatch: pytest.MonkeyPatch):
    clock, timer = SimpleNamespace(now=0.0), SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(curves, "time", SimpleNamespace(monotonic=lambda: clock.now))
    found = Curves(StageConfig(batch_size=10), timer)
    found.begin_epoch(0)
    clock.now, timer.seconds = 60.0, 50.0  # the first step, which is traced, does not count
    found.end_step(1)
    clock.now, timer.seconds = 64.0, 51.0
    found.end_step(3)
    point = found.point(logs(3), 3)
    assert point["speed/images a second"] == 2 * 10 / 4
    assert point["speed/share waiting for input"] == 1 / 4
    clock.now = 1000.0  # the validation
    found.begin_epoch(0)
    clock.now = 1002.0
    assert found.point(logs(2), 2)["speed/images a second"] == 2 * 10 / 2
