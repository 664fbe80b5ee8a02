"""Folders that cannot be written to, and disks that fill: one line, before training and within."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.mounts import mounted, read_only
from tests.unit.training.tiny import run_tiny
from tf_dpce.errors import UserError
from tf_dpce.files import write_json
from tf_dpce.training import train
from tf_dpce.training.checkpoint import (
    Progress,
    checkpoint_path,
    restore_checkpoint,
    save_checkpoint,
)
from tf_dpce.training.writing import check_writable, told_to_resume


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """A limit that every user may set."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    write_json(tmp_path / "config.json", {})
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


def large() -> list[keras.Variable]:
    return [keras.Variable(np.zeros(40_000, "float32"), name="large")]  # 156 KiB


# --- before ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["", "checkpoints"])
def test_a_folder_that_cannot_be_written_to_is_refused(begun: Path, inner: str):
    check_writable(begun)
    with read_only(begun / inner):
        with pytest.raises(UserError, match="cannot be written to: make it writable"):
            check_writable(begun)


def test_a_run_that_cannot_be_made_is_refused_before_anything_is_built(
    scenes: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    check_writable(tmp_path / "new" / "run")
    monkeypatch.setattr(train, "starting_model", None)
    (tmp_path / "file").write_text("mine")
    assert run_tiny(scenes, tmp_path / "file" / "run") == 1
    assert f"{tmp_path / 'file'} is a file: choose another" in capsys.readouterr().err
    with read_only(tmp_path):
        assert run_tiny(scenes, tmp_path / "new" / "run") == 1
    assert f"error: {tmp_path} cannot be written to" in capsys.readouterr().err


def test_a_disk_without_room_for_a_start_is_one_line(
    scenes: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    def full(path: Path, value: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(train, "write_json", full)
    assert run_tiny(scenes, tmp_path / "run") == 1
    (line,) = capsys.readouterr().err.splitlines()
    told = "No space left on device: make room there, then give the command again"
    assert line == f"error: cannot write {tmp_path / 'run' / 'config.json'}: {told}"


# --- within ---------------------------------------------------------------------------------------


def check_former_is_whole(run: Path, told: str) -> None:
    last, previous = (checkpoint_path(run, 1, kind) for kind in ("last", "previous"))
    with pytest.raises(UserError, match=told), told_to_resume(run):
        save_checkpoint(last, large(), Progress(1, 0, 6, -1.0), previous)
    assert restore_checkpoint(last, large())[0].step == 5, "the former one is whole"
    assert sorted(i.name for i in last.parent.iterdir()) == [last.name, previous.name]


def save_two(run: Path) -> None:
    last, previous = (checkpoint_path(run, 1, kind) for kind in ("last", "previous"))
    for step in (4, 5):
        save_checkpoint(last, large(), Progress(1, 0, step, -1.0), previous)


def test_a_disk_that_fills_is_told_with_its_remedy(begun: Path):
    last = checkpoint_path(begun, 1, "last")
    with mounted(last.parent, "size=400k"):
        save_two(begun)
        told = f"cannot write {last}: No space left on device: make room there, .* --resume"
        check_former_is_whole(begun, told)


def test_a_limit_of_a_files_size_is_told_with_its_remedy(begun: Path):
    save_two(begun)
    with no_file_above(100_000):
        check_former_is_whole(begun, "File too large: raise the limit of a file's size, then go on")


def test_a_disk_without_room_for_the_curves_is_told(begun: Path):
    folder = begun / "tensorboard"
    folder.mkdir()
    # No room for another name: that of the folder itself is the only one.
    with mounted(folder, "nr_inodes=1"):
        told = f"cannot write {begun}: No space left on device: make room there, then go on"
        with pytest.raises(UserError, match=told), told_to_resume(begun):
            tf.summary.create_file_writer(str(folder / "stage1")).init()


@pytest.mark.parametrize(("number", "told"), [(errno.ENOSPC, "room"), (errno.EACCES, "writable")])
def test_errors_of_tensorflow_are_told_by_the_words_of_the_system(
    begun: Path, number: int, told: str
):
    # As its writer of files has them, which needs no full disk here.
    message = f"{begun}/tensorboard/events.out; {os.strerror(number)}"
    with pytest.raises(UserError, match=told), told_to_resume(begun):
        raise tf.errors.ResourceExhaustedError(None, None, message)


def test_other_faults_are_left_alone(tmp_path: Path):
    with pytest.raises(FileNotFoundError), told_to_resume(tmp_path):
        (tmp_path / "missing").read_text()
    with pytest.raises(tf.errors.ResourceExhaustedError), told_to_resume(tmp_path):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
