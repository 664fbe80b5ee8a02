"""A run that is killed twenty times ends, to the last bit, as one that nobody disturbed."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.scenes import prepare_scenes
from tests.unit.training.kills import differences, finish, kill_often, start
from tests.unit.training.tiny import STEPS

# Negatives are mined from here on, so that stage 2 has layers of its own; epochs to be killed in.
OPTIONS = {
    "stage1__epochs": 4,
    "stage2__epochs": 4,
    "stage2__loss__negatives": "mined",
    "stage2__loss__candidates": 16,
}
SAMPLED = {"model__sampled_negatives": 8}
CONTRASTIVE = {"image_instance": 0.0, "text_instance": 0.0, "pair": 1.0, "pair_loss": "contrastive"}
TURNED = {"text__opposites": "[[left, right], [above, below]]", "stage1__backbone": "frozen"} | {
    f"stage{number}__loss__{key}": value for number in (1, 2) for key, value in CONTRASTIVE.items()
}
# Of the kills that wait for a file that is being written, some find it renamed already; the least
# share that must not.
TORN = 0.6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("replicas", "more", "minutes", "kills"),
    [
        (1, {}, 0.0, (10, 10)),
        (1, SAMPLED, 0.0, (3, 3)),
        # A checkpoint every 0.3 seconds: steps were done since the last one, and are done again.
        (1, {}, 0.005, (3, 3)),
        (1, TURNED, 0.005, (3, 3)),
        (2, {}, 0.0, (10, 10)),
        (2, SAMPLED, 0.0, (2, 2)),
    ],
)
def test_kills_at_random_moments_change_nothing(
    tmp_path: Path, replicas: int, more: dict[str, object], minutes: float, kills: tuple[int, int]
):
    data, whole, killed = (tmp_path / name for name in ("data", "whole", "killed"))
    prepare_scenes(data)
    options = OPTIONS | more | {"replicas": replicas, "checkpoint_minutes": minutes}
    began = time.monotonic()
    finish(start(data, whole, **options))
    seconds = time.monotonic() - began
    struck = kill_often(data, killed, kills, 3 * STEPS, random.Random(7), seconds, **options)
    writing = [kill for kill in struck if not kill.by_clock]
    assert len(writing) == sum(kills) // 2
    assert sum(bool(kill.torn) for kill in writing) >= TORN * len(writing), struck
    # Restored sums are spread over replicas, and added up again in another order.
    assert differences(whole, killed, metrics_rtol=1e-6 if replicas > 1 else 0.0) == []
