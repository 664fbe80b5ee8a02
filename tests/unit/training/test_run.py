"""A run from its command line to its folder: whole, killed and resumed, refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.errors import printed_code, raises
from tests.scenes import SIZE, copy_data
from tests.unit.monitoring.boards import board, steps
from tests.unit.training.kills import (
    arrays,
    aside,
    differences,
    history,
    kill_when,
    newest,
    progress,
    reached,
    start,
    steps_done,
)
from tests.unit.training.test_stages import config
from tests.unit.training.tiny import EPOCHS, STEPS, run_tiny
from tf_dpce.data.manifest import Manifest
from tf_dpce.data.prepare import prepare
from tf_dpce.datasets.shapes.source import draw_scenes, scene_numbers
from tf_dpce.errors import Stopped, UserError
from tf_dpce.logging import run_context
from tf_dpce.training import train
from tf_dpce.training.callbacks import Checkpoints
from tf_dpce.training.checkpoint import Progress, best_path, read_progress
from tf_dpce.training.run_folder import load_run, provenance, run_digest
from tf_dpce.training.sealed_arrays import write_arrays


def prepare_again(scenes: Path, folder: Path, seed: int) -> Manifest:
    """Prepares the images of `scenes` into another folder."""
    images = draw_scenes(scenes / "scenes", 0, scene_numbers(48, 12, 12), SIZE)
    options = {"source": "scenes", "lowercase": True, "shard_bytes": 10_000}
    return prepare(list(images), folder, seed=seed, **options).manifest


def flip_a_byte(path: Path) -> None:
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 0xFF
    path.write_bytes(contents)


def change_progress(path: Path, **changes: object) -> dict[str, np.ndarray]:
    """Rewrites a checkpoint's progress, and returns its arrays."""
    stored = arrays(path)
    progress = json.loads(stored["progress"].tobytes()) | changes
    stored["progress"] = np.frombuffer(json.dumps(progress).encode(), np.uint8)
    write_arrays(path, stored.items())
    return stored


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run to write to."""
    return shutil.copytree(finished, tmp_path / "run")


# --- a run that nobody disturbs -------------------------------------------------------------------


def test_what_a_run_leaves_behind(finished: Path, scenes: Path):
    names = {"config.json", "sources.json", "vocabulary.txt", "history.csv"}
    names |= {"checkpoints", "tensorboard"}
    assert {item.name for item in finished.iterdir()} == names
    files = {item.name for item in (finished / "checkpoints").iterdir()}
    # The weights of the best epoch, and the states at the end of the last and, as an epoch takes
    # less than the minutes between two checkpoints, of the one before.
    kinds = ("best", "epoch0001-step000000", "epoch0002-step000000")
    assert files == {f"stage{n}-{kind}.npz" for n in (1, 2) for kind in kinds}
    vocabulary = (scenes / "vocabulary.txt").read_bytes()
    assert (finished / "vocabulary.txt").read_bytes() == vocabulary
    saved = json.loads((finished / "config.json").read_text())
    assert saved["config"]["stage2"]["loss"]["pair"] == 2.0
    assert saved["config"]["stage2"]["loss"]["margin"] == 1.0, "defaults too"
    assert saved["data"] == provenance(Manifest.load(scenes))
    assert saved["data"]["num_instances"] == 48
    # Neither weights nor word vectors came from a file.
    sources = json.loads((finished / "sources.json").read_text())
    assert sources["splits"]["train"]["images"] == 48 and sources["files"] == {}


def test_history_has_a_line_an_epoch_and_the_loss_falls(finished: Path):
    rows = history(finished)
    stages = [(int(row["stage"]), int(row["epoch"])) for row in rows]
    assert stages == [(n, epoch + 1) for n in (1, 2) for epoch in range(EPOCHS)]
    for row in rows:
        assert np.isfinite(float(row["loss"])) and 0 <= float(row["val_rsum"]) <= 600
        assert (row["pair_loss"] != "") == (row["stage"] == "2")
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])
    # Weights 1, 0.1 and 2 of the second stage.
    for row in rows[EPOCHS:]:
        parts = [float(row[f"{n}_loss"]) for n in ("image_logits", "text_logits", "pair")]
        total = parts[0] + 0.1 * parts[1] + 2 * parts[2]
        assert float(row["loss"]) == pytest.approx(total, rel=1e-4)
    # `decay_epochs: [1]`, read after the last step of each epoch.
    assert float(rows[-1]["learning_rate"]) == pytest.approx(0.001)


def test_tensorboard_shows_the_training_and_the_validation(finished: Path):
    for stage in (1, 2):
        rows = [row for row in history(finished) if row["stage"] == str(stage)]
        train = board(finished / "tensorboard" / f"stage{stage}" / "train")
        losses = train["loss/total"]
        assert steps(losses) == [10, 12, 22, 24], "the tenth and the last step of each epoch"
        for epoch, row in enumerate(rows):
            (_, ten), (_, two) = losses[2 * epoch : 2 * epoch + 2]
            assert (10 * ten + 2 * two) / 12 == pytest.approx(float(row["loss"]), rel=1e-4)
        # The features of the first stage are cached.
        parts = {"image_head", "text_tower", "instance_classifier"}
        parts |= {"image_backbone"} if stage == 2 else set()
        for kind in ("gradient_norm", "weight_norm", "learning_rate"):
            assert {tag for tag in train if tag.startswith(kind)} == {f"{kind}/{p}" for p in parts}
            assert all(value > 0 for p in parts for _, value in train[f"{kind}/{p}"][:3])
        pairs = {"loss/pair"} if stage == 2 else set()
        assert {tag for tag in train if tag.startswith("loss/")} - {"loss/total"} == {
            *("loss/image_instance", "loss/text_instance"),
            *pairs,
        }
        assert all(0 <= value <= 1 for _, value in train["accuracy/text_instance"])
        validation = board(finished / "tensorboard" / f"stage{stage}" / "validation")
        rsums = [(12 * int(row["epoch"]), float(row["val_rsum"])) for row in rows]
        found = [(step, float(value)) for step, value in validation["validation/rsum"]]
        assert found == [(step, pytest.approx(value, rel=1e-6)) for step, value in rsums]
        for tag in ("retrieval/images found by captions", "similarity/negative"):
            assert steps(validation[tag]) == [12, 24]
        assert steps(validation["configuration"]) == steps(validation["data"]) == [0]
    backbone, head = train["learning_rate/image_backbone"], train["learning_rate/image_head"]
    assert [float(b / h) for (_, b), (_, h) in zip(backbone, head, strict=True)] == [
        pytest.approx(0.1)
    ] * 4


@pytest.mark.full
def test_a_profile_is_in_the_place_that_tensorboard_reads(scenes: Path, tmp_path: Path):
    short = {"stage1__epochs": 1, "stage2__epochs": 0}
    assert run_tiny(scenes, tmp_path / "run", "--profile", "2", **short) == 0
    train = tmp_path / "run" / "tensorboard" / "stage1" / "train"
    (profile,) = train.glob("plugins/profile/*/*.xplane.pb")
    assert profile.stat().st_size > 1000


def test_the_best_checkpoint_is_that_of_the_best_epoch(finished: Path):
    for stage in (1, 2):
        found = progress(finished, stage)
        # Of 12 validation images the last epoch, and each has the same score.
        assert read_progress(best_path(finished, stage)) == Progress(**found)
        digest = run_digest(finished)
        whole = {"stage": stage, "epoch": EPOCHS, "step": 0, "best_score": 0.0, "run": digest}
        assert found == whole


def test_a_loaded_run_is_ready_to_embed_with_the_weights_of_its_better_stage(run: Path):
    for better, rsum in ((1, 601.0), (2, 602.0)):
        path = best_path(run, better)
        stored = change_progress(path, best_score=rsum)
        loaded = load_run(run)
        assert loaded.checkpoint == path
        named = {name.split(" ", 1)[1]: value for name, value in stored.items() if " " in name}
        for variable in loaded.model.trainable_variables:
            np.testing.assert_array_equal(variable.numpy(), named[variable.path])
    assert loaded.config.model.output_dim == 8 and loaded.tokenizer.lowercase
    ids = loaded.tokenizer([" ".join(loaded.tokenizer.words[:5])])
    assert ids.numpy()[0, :6].tolist() == [1, 2, 3, 4, 5, 0]
    vector = loaded.model.text_encoder.predict(ids, verbose=0)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


# --- killed and resumed ---------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.sentinel
def test_a_run_that_is_killed_while_it_writes_ends_as_if_nothing_had_happened(
    scenes: Path, finished: Path, tmp_path: Path
):
    run = tmp_path / "killed"
    kill_when(start(scenes, run), reached(run, 1, STEPS // 2, writing=True))
    assert steps_done(run, 1) < EPOCHS * STEPS
    assert run_tiny(scenes, run, "--resume") == 0
    assert differences(finished, run) == []
    assert not aside(run), "nothing half-written"
    for name in ("stage1/train", "stage1/validation", "stage2/train", "stage2/validation"):
        one, two = (board(folder / "tensorboard" / name) for folder in (finished, run))
        assert one.keys() == two.keys()
        for tag in one:
            # What is measured within an epoch may lack where the process was killed.
            found, whole = steps(two[tag]), steps(one[tag])
            assert found == whole or (name == "stage1/train" and set(found) < set(whole)), tag
            assert found == sorted(set(found)), "no step twice"


@pytest.mark.full
def test_sigterm_ends_the_step_in_flight_writes_it_and_exits_with_its_own_status(
    scenes: Path, finished: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    run, begun = tmp_path / "stopped", []
    # In the last step of an epoch, whose end alone is then left to do, and within the next epoch.
    stops = {STEPS: "epoch0000-step000012", STEPS + 5: "epoch0001-step000005"}

    def count(self, batch: int, logs: dict | None = None) -> None:
        begun.append(batch)
        if len(begun) in stops:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_begin", count)
        for (steps, state), resume in zip(stops.items(), ((), ("--resume",)), strict=True):
            assert run_tiny(scenes, run, *resume) == 75
            assert "--resume" in capsys.readouterr().err.splitlines()[-1]
            assert len(begun) == steps and newest(run, 1).name == f"stage1-{state}.npz"
    process = start(scenes, run, "--resume")
    kill_when(process, reached(run, 1, STEPS + 6), by=signal.SIGTERM)
    assert process.returncode == 75
    assert run_tiny(scenes, run, "--resume") == 0
    assert differences(finished, run) == []


def test_a_stop_while_features_are_cached_leaves_no_part_of_them(scenes: Path, tmp_path: Path):
    data = copy_data(scenes, tmp_path / "data")
    # Asked after the first images.
    with pytest.raises(Stopped), run_context(stop_requested=lambda: True):
        train.train(config(), data, tmp_path / "run")
    assert list((data / "features").iterdir()) == []
    assert not (tmp_path / "run" / "checkpoints").exists()


# --- refused --------------------------------------------------------------------------------------


def test_the_verb_refuses_in_one_line_before_anything_is_built(
    scenes: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(train, "starting_model", None)
    run = tmp_path / "run"
    for more, changes, code in (
        ((), {"stage1__epochs": 0, "stage2__epochs": 0}, "training.epochs"),
        ((), {"stage2__batch_size": 49}, "training.batch_size"),
        (("--stage", "2"), {}, "run.init_from"),
        (("--stage", "2", "--resume"), {}, "run.init_from"),
        (("--init-from", str(tmp_path)), {}, "run.config"),
    ):
        assert run_tiny(scenes, run, *more, **changes) == 1
        assert printed_code(capsys.readouterr().err) == code
    assert not run.exists()


def test_an_unknown_preset_key_or_value_is_bad_usage(scenes: Path, tmp_path: Path, capsys):
    for more in (
        ("--preset", "flickr9k"),
        ("--stage1.epoch", "1"),
        ("--stage1.epochs", "two"),
        ("--stage", "3"),
        ("--stage1.optimizer", "rmsprop"),
        ("--text.tokenizer", "sentencepiece"),
        ("--text.pieces", "0"),
    ):
        with pytest.raises(SystemExit) as exit:
            run_tiny(scenes, tmp_path / "run", *more)
        assert exit.value.code == 2
        assert "error:" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_a_model_cannot_be_made_of_is_refused(scenes: Path, tmp_path: Path):
    for changes in (
        {"image__backbone": "ResNet51"},
        {"vectors": "missing.npz"},
        {"image__backbone": "VGG16", "weights": "missing.h5"},
    ):
        with pytest.raises(UserError):
            train.train(config(**changes), scenes, tmp_path / "run")
    assert not (tmp_path / "run").exists(), "the same --run can be given again"


def test_the_same_images_in_another_order_are_other_data(
    scenes: Path, finished: Path, run: Path, tmp_path: Path
):
    first = provenance(Manifest.load(scenes))
    assert provenance(prepare_again(scenes, tmp_path / "same", seed=0)) == first
    # Another seed gives the same images other numbers.
    other = provenance(prepare_again(scenes, tmp_path / "data", seed=1))
    assert {key for key in first if first[key] != other[key]} == {"train_digest"}
    with raises("run.differs"):
        train.train(config(), tmp_path / "data", run, resume=True)
    with raises("run.other_data", path=finished):
        train.train(config(), tmp_path / "data", tmp_path / "new", (2,), init_from=finished)


def test_starting_from_another_architecture_or_damaged_weights_is_refused(
    scenes: Path, run: Path, tmp_path: Path
):
    new = tmp_path / "new"
    for options, code in (
        ({"image__head_dim": 16}, "checkpoint.model"),
        ({"model__sampled_negatives": 10}, "checkpoint.model"),
        ({}, "checkpoint.damaged"),
    ):
        if not options:
            for stage in (1, 2):
                flip_a_byte(best_path(run, stage))
        with raises(code):
            train.train(config(**options), scenes, new, (2,), init_from=run)
    assert not new.exists()


@pytest.mark.full
def test_a_checkpoint_of_another_run_is_refused(scenes: Path, run: Path):
    # Of the stage that the run is in both are needed, of the one before it what it is judged by.
    for path in (newest(run, 2), best_path(run, 2), best_path(run, 1)):
        before = path.read_bytes()
        change_progress(path, run="another's")
        changed = path.read_bytes()
        with raises("checkpoint.foreign", path=path):
            train.train(config(), scenes, run, resume=True)
        assert path.read_bytes() == changed
        path.write_bytes(before)


def test_a_vocabulary_of_other_data_is_refused_before_anything_is_written(
    scenes: Path, tmp_path: Path
):
    data = copy_data(scenes, tmp_path / "data")
    path = data / "vocabulary.txt"
    path.write_text("zebra\n" + path.read_text())
    for _ in range(2):
        with raises("training.vocabulary", path=path):
            train.train(config(), data, tmp_path / "run")
        path.unlink(missing_ok=True)
    assert not (tmp_path / "run").exists()


# --- loaded ---------------------------------------------------------------------------------------


def test_a_run_whose_vocabulary_is_lost_gets_it_back_when_it_is_resumed(
    scenes: Path, finished: Path, run: Path, caplog: pytest.LogCaptureFixture
):
    path = run / "vocabulary.txt"
    for harm in (flip_a_byte, Path.unlink):
        harm(path)
        with raises("run.vocabulary", path=path):
            load_run(run)
    train.train(config(), scenes, run, resume=True)
    assert path.read_bytes() == (finished / "vocabulary.txt").read_bytes()


def test_a_config_that_cannot_be_read_is_named(run: Path):
    path = run / "config.json"
    before = path.read_text()
    for part, key, value in (
        ("config", "sead", 7),
        ("config", "seed", "seven"),
        ("config", "image", None),
        ("data", "vocabulary_sha256", None),
        ("data", "num_instances", "x"),
    ):
        saved = json.loads(before)
        saved[part][key] = value
        path.write_text(json.dumps(saved))
        with raises("run.config", path=path) as caught:
            load_run(run)
        assert key in str(caught.value)
    for content in ('{"model_type": "clip"}', '{"config": {}, "data": 3}', "[1]"):
        path.write_text(content)
        with raises("run.config", path=path):
            load_run(run)
    path.unlink()
    with raises("run.config", path=path):
        load_run(run)


def test_a_run_without_a_checkpoint_cannot_be_loaded(run: Path):
    shutil.rmtree(run / "checkpoints")
    with raises("checkpoint.missing"):
        load_run(run)
