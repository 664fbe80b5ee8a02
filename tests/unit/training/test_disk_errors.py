"""Disks that fill while a run is trained: one line with a remedy, and the former state is whole."""

from __future__ import annotations

import errno
import gc
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.errors import printed_code, raises
from tests.mounts import mounted
from tests.unit.training.test_stages import config
from tests.unit.training.tiny import run_tiny
from tf_dpce import files
from tf_dpce.errors import explain_system_error
from tf_dpce.monitoring.monitor import MonitoredStage
from tf_dpce.training import train
from tf_dpce.training.checkpoint import Progress, restore_checkpoint, save_state, state_paths


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """A limit that every user may set."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def save(run: Path, step: int) -> None:
    large = [keras.Variable(np.zeros(40_000, "float32"), name="large")]  # 156 KiB
    save_state(run, large, Progress(1, 0, step, -1.0))


def check_a_failing_save(run: Path, number: int) -> None:
    before = state_paths(run, 1)
    with pytest.raises(OSError) as caught:
        save(run, 6)
    assert caught.value.errno == number
    assert explain_system_error(caught.value).path.parent == run / "checkpoints"
    variable = keras.Variable(np.ones(40_000, "float32"), name="large")
    assert restore_checkpoint(before[0], [variable])[0].step == 5, "the former one is whole"
    assert sorted((run / "checkpoints").iterdir()) == sorted(before)


def test_a_disk_or_a_file_that_is_full_leaves_the_former_states(tmp_path: Path):
    (tmp_path / "checkpoints").mkdir()
    for step in (4, 5):
        save(tmp_path, step)
    with no_file_above(100_000):
        check_a_failing_save(tmp_path, errno.EFBIG)
    other = tmp_path / "other"
    (other / "checkpoints").mkdir(parents=True)
    with mounted(other / "checkpoints", "size=400k"):
        for step in (4, 5):
            save(other, step)
        check_a_failing_save(other, errno.ENOSPC)


def test_a_full_disk_in_the_words_of_tensorflow_is_explained(tmp_path: Path):
    # No room for another name: that of the folder itself is the only one.
    with mounted(tmp_path, "nr_inodes=1"):
        with pytest.raises(tf.errors.OpError) as caught:
            tf.summary.create_file_writer(str(tmp_path / "stage1")).init()
    assert explain_system_error(caught.value).code == "system.file"


@pytest.mark.full
def test_a_disk_without_room_for_the_curves_costs_no_more_than_these(
    scenes: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    full, run = tmp_path / "full", tmp_path / "run"
    full.mkdir()
    monkeypatch.setattr(MonitoredStage, "folder", lambda stage, name: full / name)
    with mounted(full, "nr_inodes=1"):
        assert run_tiny(scenes, run, stage1__epochs=1, stage2__epochs=0) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "TensorBoard" in line]
    assert len(warned) == 1 and str(full) in warned[0]
    assert state_paths(run, 1)


@pytest.mark.full
def test_a_disk_that_fills_while_training_says_how_to_continue(
    scenes: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    run = tmp_path / "run"
    run.mkdir()
    # Room for two states of 1.3 MB, and none for a third, which is written before one is removed.
    with mounted(run, "size=3m"):
        status = run_tiny(scenes, run, stage1__epochs=1, stage2__epochs=0, checkpoint_minutes=0)
        errors = capsys.readouterr().err
        assert (status, printed_code(errors)) == (1, "system.file")
        assert "--resume" in errors.splitlines()[-1]
        assert [path.name[-7:] for path in state_paths(run, 1)] == ["002.npz", "001.npz"]
        assert len(list((run / "checkpoints").iterdir())) == 2, "nothing half-written"
        # What the exception held would keep files open, and the folder mounted.
        gc.collect()

    # There is nothing to resume yet.
    path = tmp_path / "new" / "config.json"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    monkeypatch.setattr(files, "write_json", Mock(side_effect=full))
    with raises("system.file", path=path) as caught:
        train.train(config(), scenes, tmp_path / "new")
    assert "--resume" not in str(caught.value)
