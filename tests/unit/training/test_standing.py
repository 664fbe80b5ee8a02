"""Where a run goes on: in the latest stage that has a checkpoint, and not before it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.training.kills import differences, history, steps_done
from tests.unit.training.test_damage import flip_a_byte
from tests.unit.training.test_stages import config
from tests.unit.training.tiny import EPOCHS, run_tiny
from tf_dpce.errors import Stopped
from tf_dpce.training import train

STOPPED_AT = 6


def checkpoint(run: Path, name: str) -> Path:
    return run / "checkpoints" / f"{name}.npz"


@pytest.fixture
def bare(scenes: Path, tmp_path: Path) -> Path:
    """A copy of the data whose features nobody has cached."""
    leave = shutil.ignore_patterns("features", "scenes")
    return shutil.copytree(scenes, tmp_path / "data", ignore=leave)


@pytest.fixture(scope="module")
def halfway(scenes: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run killed between its stages, resumed, and stopped in stage 2; without cached features."""
    folder = tmp_path_factory.mktemp("halfway")
    leave = shutil.ignore_patterns("features", "scenes")
    data = shutil.copytree(scenes, folder / "data", ignore=leave)
    leave = shutil.ignore_patterns("stage2*")
    run = shutil.copytree(finished, folder / "run", ignore=leave)
    lines = (run / "history.csv").read_text().splitlines(keepends=True)
    (run / "history.csv").write_text("".join(lines[: 1 + EPOCHS]))
    # A step is judged before it is written.
    stop = lambda: steps_done(run, 2) >= STOPPED_AT - 1  # noqa: E731
    with pytest.raises(Stopped, match="stopped in stage 2"):
        train.train(config(checkpoint_minutes=0.0), data, run, resume=True, stop=stop)
    assert steps_done(run, 2) == STOPPED_AT
    assert not (data / "features").exists(), "stage 1, which is done, asks for none"
    return run


def delete(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("harm", [delete, flip_a_byte])
def test_a_finished_run_needs_nothing_of_its_first_stage_and_computes_nothing(
    bare: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable
):
    run = shutil.copytree(finished, tmp_path / "run")
    for kind in ("last", "previous"):
        harm(checkpoint(run, f"stage1-{kind}"))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    monkeypatch.setattr(train, "Stage", None)
    assert run_tiny(bare, run, "--resume") == 0
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert history(run) == history(finished)
    assert not (bare / "features").exists()


def test_a_run_goes_on_from_what_is_whole_in_the_stage_that_it_stands_in(
    bare: Path, finished: Path, halfway: Path, tmp_path: Path, capsys
):
    run = shutil.copytree(halfway, tmp_path / "run")
    first, second = (checkpoint(run, f"stage{stage}-last") for stage in (1, 2))
    for path in (first, second):
        flip_a_byte(path)
    damaged = first.read_bytes()
    assert run_tiny(bare, run, "--resume") == 0
    (line,) = [li for li in capsys.readouterr().out.splitlines() if "damaged" in li]
    assert f"{second} is damaged: its checksum is another: going on with the one before" in line
    assert first.read_bytes() == damaged, "nobody asked for it, nor for the one before"
    shutil.copy(checkpoint(halfway, "stage1-last"), first)
    assert differences(finished, run) == []
