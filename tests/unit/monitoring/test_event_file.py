"""What is written for TensorBoard, read by TensorBoard."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from tests.mounts import mounted
from tests.unit.monitoring.boards import board, steps
from tf_dpce.monitoring.event_file import EventFile, histograms, image, scalars


def test_tensorboard_reads_what_was_written(tmp_path: Path):
    file = EventFile(tmp_path, first_step=0)
    file.add(3, scalars({"loss/total": 0.5, "loss/pair": 0.25}), image("hits", b"jpeg", (4, 2)))
    file.add(5, histograms({"cosines": np.array([0.0, 1.0, 1.0]), "none": np.array([])}))
    found = board(tmp_path)
    assert found.keys() == {"loss/total", "loss/pair", "hits", "cosines"}
    assert found["loss/pair"] == [(3, 0.25)]
    ((step, parts),) = found["hits"]
    assert (step, parts.tolist()) == (3, [b"4", b"2", b"jpeg"])
    ((step, buckets),) = found["cosines"]
    # Left edge, right edge and count of each bucket.
    assert step == 5 and buckets[0, 2] == 1 and buckets[-1, 2] == 2 and buckets[:, 2].sum() == 3


def test_steps_that_are_done_again_are_shown_once(tmp_path: Path):
    first = EventFile(tmp_path, first_step=0)
    for step in (0, 10, 20, 30):
        first.add(step, scalars({"loss": 1.0}))
    # Killed after a checkpoint of step 15; step 20 and what follows are done again.
    second = EventFile(tmp_path, first_step=16)
    for step in (20, 30, 40):
        second.add(step, scalars({"loss": 2.0}))
    assert board(tmp_path)["loss"] == [(0, 1.0), (10, 1.0), (20, 2.0), (30, 2.0), (40, 2.0)]
    # Ten files later their names are still in order.
    for number in range(9):
        EventFile(tmp_path, first_step=41).add(50 + number, scalars({"loss": 3.0}))
    EventFile(tmp_path, first_step=20).add(20, scalars({"loss": 4.0}))
    assert board(tmp_path)["loss"] == [(0, 1.0), (10, 1.0), (20, 4.0)]


def test_a_full_disk_costs_an_event_and_no_other(tmp_path: Path):
    with mounted(tmp_path, "size=64k"):
        file = EventFile(tmp_path, first_step=0)
        file.add(1, scalars({"loss": 1.0}))
        with pytest.raises(OSError) as caught:
            file.add(2, image("hits", bytes(100_000), (1, 1)))
        assert caught.value.errno == errno.ENOSPC
        file.add(3, scalars({"loss": 3.0}))
        found = board(tmp_path)
        assert found.keys() == {"loss"} and steps(found["loss"]) == [1, 3]
