"""How a run is resumed: where, from which files, and that nothing changes by it."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest.mock import Mock

import keras
import numpy as np
import pytest

from pipelines import evaluate
from tests.errors import printed_code, raises
from tests.samples import digests
from tests.scenes import copy_data
from tests.unit.training.kills import arrays, differences, history, newest, steps_done
from tests.unit.training.test_run import flip_a_byte
from tests.unit.training.test_stages import config
from tests.unit.training.tiny import EPOCHS, STEPS, run_tiny
from tf_dpce import files
from tf_dpce.data.manifest import Manifest
from tf_dpce.datasets.shapes.scene import make_scene
from tf_dpce.errors import Stopped
from tf_dpce.files import exclusive_lock, is_temporary, read_json, sha256_file
from tf_dpce.logging import run_context
from tf_dpce.preprocessing.vocabulary import count_words
from tf_dpce.training import train
from tf_dpce.training.checkpoint import state_paths
from tf_dpce.training.run_folder import load_run

STOPPED_AT = 6
ONCE = {"stage1__epochs": 1, "stage2__epochs": 0}
# A stage that mines asks for the cached features before its state is read.
MINED = ONCE | {
    "stage1__loss__pair": 1.0,
    "stage1__loss__pair_loss": "ranking",
    "stage1__loss__negatives": "mined",
    "stage1__loss__candidates": 8,
}


# --- starts ---------------------------------------------------------------------------------------


@pytest.mark.full
def test_a_start_that_was_killed_is_no_hindrance(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_json", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train.train(config(**ONCE), scenes, run)
    aside = run / ".config.json.0f12a9b3c4d5.tmp"
    aside.touch()
    before = {run / "vocabulary.txt", aside}
    assert set(run.iterdir()) == before
    # As by one in another container: only its lock shows that it lives.
    with exclusive_lock(run), raises("file.locked", path=run):
        train.train(config(**ONCE), scenes, run)
    assert set(run.iterdir()) == before
    # A scheduler repeats one command: nothing to resume is no mistake, and is said.
    with caplog.at_level("INFO", "tf_dpce"):
        train.train(config(**ONCE), scenes, run, resume=True)
    assert any(line.startswith(str(run)) for line in caplog.messages)
    assert not [item for item in run.rglob("*") if is_temporary(item.name)]
    assert load_run(run).config == config(**ONCE)


# --- without the files that it began with ---------------------------------------------------------


@pytest.mark.full
def test_a_run_is_resumed_without_the_vectors_that_it_began_with(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    data, run, whole = copy_data(scenes, tmp_path / "data"), tmp_path / "run", tmp_path / "whole"
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("red 1 2 3 4 5 6 7 8\nzebra 1 2 3 4 5 6 7 8\n")
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO", "tf_dpce"):
        train.train(config(vectors="vectors.txt", **MINED), data, whole)
    # How many words they know, and what share of the captions those are. 12 scenes each for test
    # and validation come first.
    captions = [text for number in range(24, 72) for text in make_scene(0, number).captions]
    counts = count_words(captions, lowercase=True)
    # The second line warns that this is little.
    line, _ = [line for line in caplog.messages if str(vectors) in line]
    size = Manifest.load(data).vocabulary_size
    assert f"1 of {size} words" in line
    assert f" {100 * counts['red'] / counts.total():.1f} %" in line

    asked = iter([False] * (1 + STEPS // 2))
    features = sorted((data / "features").iterdir())
    with pytest.raises(Stopped), run_context(stop_requested=lambda: next(asked, True)):
        train.train(config(vectors="vectors.txt", **MINED), data, run)
    vectors.unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    # Other first weights, as another file would give: they are those of the state at once.
    draw = keras.utils.set_random_seed
    monkeypatch.setattr(keras.utils, "set_random_seed", lambda seed: draw(seed + 1))
    moved = config(vectors="moved.txt", checkpoint_minutes=0.5, **MINED)
    train.train(moved, data, run, resume=True)
    assert sorted((data / "features").iterdir()) == features, "no other backbone was cached"
    expected, found = (arrays(newest(folder, 1)) for folder in (whole, run))
    for name in expected.keys() - {"progress"}:
        assert (expected[name] == found[name]).all(), name
    assert history(run)[0]["loss"] == history(whole)[0]["loss"]


@pytest.mark.full
def test_a_second_stage_starts_from_the_best_of_a_run_and_is_resumed_without_it(
    scenes: Path, finished: Path, tmp_path: Path
):
    origin, run = shutil.copytree(finished, tmp_path / "origin"), tmp_path / "run"
    # At rate 0 nothing but BatchNorm's averages and dropout's seeds moves.
    frozen = config(stage2__learning_rate=0.0, stage2__epochs=1)
    train.train(frozen, scenes, run, (2,), init_from=origin)
    names = {item.name for item in (run / "checkpoints").iterdir()}
    assert names == {"stage2-best.npz", "stage2-epoch0001-step000000.npz"}
    first, model = load_run(finished).model, load_run(run).model
    for before, after in zip(first.trainable_variables, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(after.numpy(), before.numpy(), err_msg=after.path)
    shutil.rmtree(origin)
    for given in (None, origin):
        train.train(frozen, scenes, run, (2,), init_from=given, resume=True)
    # Without a state there is nothing to resume from.
    shutil.rmtree(run / "checkpoints")
    with raises("run.init_from"):
        train.train(frozen, scenes, run, (2,), resume=True)


# --- from which stage and which state -------------------------------------------------------------


@pytest.fixture(scope="module")
def halfway(scenes: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run killed between its stages, resumed, and stopped in stage 2; without cached features."""
    folder = tmp_path_factory.mktemp("halfway")
    data = copy_data(scenes, folder / "data")
    leave = shutil.ignore_patterns("stage2*")
    run = shutil.copytree(finished, folder / "run", ignore=leave)
    lines = (run / "history.csv").read_text().splitlines(keepends=True)
    (run / "history.csv").write_text("".join(lines[: 1 + EPOCHS]))
    # A step is judged before it is written.
    stop = lambda: steps_done(run, 2) >= STOPPED_AT - 1  # noqa: E731
    with pytest.raises(Stopped, match="stage 2"), run_context(stop_requested=stop):
        train.train(config(checkpoint_minutes=0.0), data, run, resume=True)
    assert steps_done(run, 2) == STOPPED_AT
    assert not (data / "features").exists(), "stage 1, which is done, asks for none"
    return run


@pytest.mark.full
def test_a_finished_run_needs_nothing_of_its_first_stage_and_computes_nothing(
    scenes: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bare, run = copy_data(scenes, tmp_path / "data"), shutil.copytree(finished, tmp_path / "run")
    damaged, lost = state_paths(run, 1)
    flip_a_byte(damaged)
    lost.unlink()
    before = digests(run)
    monkeypatch.setattr(train, "train_stage", None)
    train.train(config(), bare, run, resume=True)
    assert digests(run) == before and not (bare / "features").exists()


@pytest.mark.full
def test_a_run_is_resumed_from_the_newest_readable_state_of_its_latest_stage(
    scenes: Path, finished: Path, halfway: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    bare, run = copy_data(scenes, tmp_path / "data"), shutil.copytree(halfway, tmp_path / "run")
    first, second = (newest(run, stage) for stage in (1, 2))
    for path in (first, second):
        flip_a_byte(path)
    damaged = first.read_bytes()
    train.train(config(), bare, run, resume=True)
    (line,) = [line for line in caplog.messages if "damaged" in line]
    assert str(second) in line
    assert first.read_bytes() == damaged, "nobody asked for it, nor for the older one"
    shutil.copy(newest(halfway, 1), first)
    assert differences(finished, run) == []


def test_an_evaluation_takes_the_newest_readable_state_too(
    scenes: Path, finished: Path, tmp_path: Path, capsys
):
    run = shutil.copytree(finished, tmp_path / "run")
    damaged, older = state_paths(run, 2)
    flip_a_byte(damaged)
    options = ["--run", str(run), "--data", str(scenes), "--split", "test", "--checkpoint", "last"]
    assert evaluate.main(options) == 0
    assert str(damaged) in capsys.readouterr().err
    (saved,) = run.glob("metrics-*.json")
    assert read_json(saved)["checkpoint_sha256"] == sha256_file(older)


# --- damaged data ---------------------------------------------------------------------------------


@pytest.mark.full
def test_a_damaged_shard_is_named(scenes: Path, finished: Path, tmp_path: Path, capsys):
    data = copy_data(scenes, tmp_path / "data")
    for split in ("train", "test"):
        flip_a_byte(sorted(data.glob(f"{split}-*.tfrecord"))[1])
    for backbone in ("cached", "trained"):
        run = tmp_path / backbone
        assert run_tiny(data, run, **ONCE, stage1__backbone=backbone) == 1
        assert str(data / "train-00001-of-") in capsys.readouterr().err
    run = shutil.copytree(finished, tmp_path / "run")
    assert evaluate.main(["--run", str(run), "--data", str(data), "--split", "test"]) == 1
    errors = capsys.readouterr().err
    # The manifest knows more than one shard that may be read first.
    assert str(data) in errors.splitlines()[-1] and printed_code(errors) != "system.file"
