"""Starts: over what a kill left behind, beside a run that lives, where nothing can be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.training.tiny import run_tiny
from tf_dpce.files import is_aside, sole_writer

ONCE = {"stage1__epochs": 1, "stage2__epochs": 0}
# As a process of this number might have been writing it, and one of an earlier version.
ASIDE = (".config.json.0f12a9b3c4d5.tmp", ".config.json.1.tmp")


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The folder of a run that was killed between its vocabulary and its `config.json`."""
    run = tmp_path / "run"
    run.mkdir()
    for name in ("vocabulary.txt", *ASIDE):
        (run / name).write_text("dog\n")
    return run


@pytest.mark.parametrize("more", [(), ("--resume",)])
def test_what_a_killed_start_left_aside_is_removed(scenes: Path, killed: Path, more: tuple):
    assert run_tiny(scenes, killed, *more, **ONCE) == 0
    assert not [item for item in killed.rglob("*") if is_aside(item.name)]


def test_nothing_is_removed_that_a_run_may_be_writing(scenes: Path, killed: Path, capsys):
    # One in another container: nothing but its lock tells that it lives.
    with sole_writer(killed):
        assert run_tiny(scenes, killed, **ONCE) == 1
        assert "another process is writing" in capsys.readouterr().err
    assert {item.name for item in killed.iterdir()} == {"vocabulary.txt", *ASIDE}
