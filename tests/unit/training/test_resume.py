"""What a run needs to go on: its checkpoint, and not the files that it once began with."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import pytest

from tests.unit.training.kills import arrays, history
from tests.unit.training.test_stages import config
from tests.unit.training.tiny import STEPS, run_tiny
from tf_dpce.errors import Stopped
from tf_dpce.training import train

# A stage that mines asks for the cached features before its checkpoint is read.
MINED = {
    "stage1__loss__pair": 1.0,
    "stage1__loss__pair_loss": "ranking",
    "stage1__loss__negatives": "mined",
    "stage1__loss__candidates": 8,
    "stage2__epochs": 0,
}


def stop_after(steps: int, data: Path, run: Path, **options: object) -> None:
    asked = iter(range(10_000))
    # Asked once before the first step; the features are there already.
    settings = config(**options)
    with pytest.raises(Stopped):
        train.train(settings, data, run, stages=(1,), stop=lambda: next(asked) > steps)


def test_a_run_goes_on_without_the_vectors_that_it_began_with(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    vectors, once = tmp_path / "vectors.txt", MINED | {"stage1__epochs": 1}
    vectors.write_text("red 1 2 3 4 5 6 7 8\n")
    data = shutil.copytree(scenes, tmp_path / "data", ignore=shutil.ignore_patterns("scenes"))
    assert run_tiny(data, tmp_path / "whole", vectors=vectors, **once) == 0
    features = sorted((data / "features").iterdir())

    run = tmp_path / "stopped"
    stop_after(STEPS // 2, data, run, vectors=str(vectors), **once)
    vectors.unlink()
    # Other first weights, as another file would give: they are those of the checkpoint at once.
    draw = keras.utils.set_random_seed
    monkeypatch.setattr(keras.utils, "set_random_seed", lambda seed: draw(seed + 1))
    moved = {"vectors": tmp_path / "moved.txt", "checkpoint_minutes": 0.5}
    assert run_tiny(data, run, "--resume", **moved, **once) == 0
    assert sorted((data / "features").iterdir()) == features, "no other backbone was cached"
    expected, found = (
        arrays(folder / "checkpoints" / "stage1-last.npz") for folder in (tmp_path / "whole", run)
    )
    for name in expected.keys() - {"progress"}:
        assert (expected[name] == found[name]).all(), name
    assert history(run)[0]["loss"] == history(tmp_path / "whole")[0]["loss"]


def test_a_second_stage_goes_on_without_the_run_it_started_from(
    scenes: Path, finished: Path, tmp_path: Path, capsys
):
    origin = shutil.copytree(finished, tmp_path / "origin")
    run, once = tmp_path / "run", {"stage2__epochs": 1}
    assert run_tiny(scenes, run, "--stage", "2", "--init-from", str(origin), **once) == 0
    shutil.rmtree(origin)
    for more in ([], ["--init-from", str(origin)]):
        assert run_tiny(scenes, run, "--stage", "2", "--resume", *more, **once) == 0
    capsys.readouterr()
    # Without a checkpoint it has nothing to go on with.
    shutil.rmtree(run / "checkpoints")
    assert run_tiny(scenes, run, "--stage", "2", "--resume", **once) == 1
    assert "no checkpoint to go on from yet: give --init-from" in capsys.readouterr().err
    assert run_tiny(scenes, tmp_path / "new", "--stage", "2", **once) == 1
    assert "--stage 2 needs --init-from RUN" in capsys.readouterr().err
