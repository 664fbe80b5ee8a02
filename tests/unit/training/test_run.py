"""A run from its command line to its folder: whole, killed and resumed, refused."""

from __future__ import annotations

import json
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.mounts import mounted
from tests.scenes import SIZE
from tests.unit.training.kills import (
    STOPPED_WITHIN,
    arrays,
    await_held,
    differences,
    held,
    history,
    kill_often,
    progress,
    start,
)
from tests.unit.training.test_stages import config
from tests.unit.training.tiny import BATCH, EPOCHS, OPTIONS, STEPS, run_tiny
from tf_dpce.config import Config
from tf_dpce.data.index_shuffle import Order
from tf_dpce.data.input_pipeline import RecordReader
from tf_dpce.data.manifest import Manifest
from tf_dpce.data.prepare import prepare
from tf_dpce.datasets.shapes.scene import make_scene
from tf_dpce.datasets.shapes.source import draw_scenes, scene_numbers
from tf_dpce.errors import Stopped, UserError
from tf_dpce.files import sole_writer
from tf_dpce.preprocessing.vocabulary import count_words
from tf_dpce.training import train
from tf_dpce.training.run_folder import load_run, provenance, run_digest


def prepare_again(scenes: Path, folder: Path, seed: int) -> Manifest:
    """Prepares the images of `scenes` into another folder."""
    pairs = draw_scenes(scenes / "scenes", 0, scene_numbers(48, 12, 12), SIZE)
    options = {"source": "scenes", "lowercase": True, "shard_bytes": 10_000}
    return prepare(list(pairs), folder, seed=seed, **options).manifest


def expect_mistake(capsys, status: int, *words: str) -> None:
    assert status == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    assert all(word in lines[0] for word in words), lines[0]


# --- a run that nobody disturbs -------------------------------------------------------------------


def test_what_a_run_leaves_behind(finished: Path, scenes: Path):
    names = {"config.json", "vocabulary.txt", "history.csv", "checkpoints", "tensorboard"}
    assert {item.name for item in finished.iterdir()} == names
    files = {item.name for item in (finished / "checkpoints").iterdir()}
    kinds = ("best", "last", "previous")
    assert files == {f"stage{n}-{kind}.npz" for n in (1, 2) for kind in kinds}
    for stage in ("stage1", "stage2"):
        assert list((finished / "tensorboard" / stage).rglob("events.out.tfevents.*"))
    vocabulary = (scenes / "vocabulary.txt").read_bytes()
    assert (finished / "vocabulary.txt").read_bytes() == vocabulary


def test_the_configuration_is_written_resolved(finished: Path, scenes: Path):
    saved = json.loads((finished / "config.json").read_text())
    assert saved["config"]["seed"] == OPTIONS["seed"]
    assert saved["config"]["stage2"]["loss"]["pair"] == 2.0
    assert saved["config"]["stage2"]["loss"]["margin"] == 1.0, "defaults too"
    manifest = json.loads((scenes / "manifest.json").read_text())
    assert saved["data"]["split_digest"] == manifest["split_digest"]
    assert saved["data"]["vocabulary_sha256"] == manifest["vocabulary_sha256"]
    assert saved["data"]["num_instances"] == 48
    assert saved["data"] == provenance(Manifest.load(scenes))


def test_another_order_of_the_same_images_is_other_data(scenes: Path, tmp_path: Path):
    first = provenance(Manifest.load(scenes))
    assert provenance(prepare_again(scenes, tmp_path / "same", seed=0)) == first
    # Another seed gives the same images other numbers.
    other = provenance(prepare_again(scenes, tmp_path / "other", seed=1))
    assert {key for key in first if first[key] != other[key]} == {"train_digest"}


def test_history_has_a_line_an_epoch(finished: Path):
    rows = history(finished)
    stages = [(int(row["stage"]), int(row["epoch"])) for row in rows]
    assert stages == [(n, epoch + 1) for n in (1, 2) for epoch in range(EPOCHS)]
    for row in rows:
        assert np.isfinite(float(row["loss"])) and 0 <= float(row["val_rsum"]) <= 600
        assert (row["pair_loss"] != "") == (row["stage"] == "2")
    # Weights 1, 0.1 and 2 of the second stage.
    for row in rows[EPOCHS:]:
        parts = [float(row[f"{n}_loss"]) for n in ("image_logits", "text_logits", "pair")]
        total = parts[0] + 0.1 * parts[1] + 2 * parts[2]
        assert float(row["loss"]) == pytest.approx(total, rel=1e-4)
    rates = [float(row["learning_rate"]) for row in rows[EPOCHS:]]
    # `decay_epochs: [1]`, read after the last step of each epoch.
    assert rates[-1] == pytest.approx(0.001)


def test_the_loss_falls_and_the_model_is_no_guess(finished: Path):
    rows = [row for row in history(finished) if row["stage"] == "1"]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])


def test_tensorboard_shows_the_validation(finished: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folders = (finished / "tensorboard" / "stage2").iterdir()
    tags = set()
    for folder in folders:
        accumulator = EventAccumulator(str(folder))
        accumulator.Reload()
        tags |= set(accumulator.Tags()["tensors"]) | set(accumulator.Tags()["scalars"])
    assert any("rsum" in tag for tag in tags), tags


def test_the_best_checkpoint_is_that_of_the_best_epoch(finished: Path):
    for stage in (1, 2):
        best = max(float(r["val_rsum"]) for r in history(finished) if r["stage"] == str(stage))
        assert progress(finished, stage)["best_rsum"] == pytest.approx(best, rel=1e-6)
        assert progress(finished, stage) | {"best_rsum": 0} == {
            "stage": stage,
            "epoch": EPOCHS,
            "step": 0,
            "best_rsum": 0,
            "run": run_digest(finished),
        }


def test_a_loaded_run_is_ready_to_embed(finished: Path):
    run = load_run(finished)
    assert run.config.model.output_dim == 8 and run.config.image.input_size == 32
    assert run.tokenizer.lowercase
    ids = run.tokenizer([" ".join(run.tokenizer.words[:5])])
    assert ids.numpy()[0, :6].tolist() == [1, 2, 3, 4, 5, 0]
    vector = run.model.text_encoder.predict(ids, verbose=0)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    # The last checkpoint holds the same variables at another time.
    last = load_run(finished, "last").model
    assert [v.path for v in last.trainable_variables] == [
        v.path for v in run.model.trainable_variables
    ]


@pytest.mark.parametrize("better", [1, 2])
def test_a_loaded_run_has_the_weights_of_its_better_stage(
    finished: Path, tmp_path: Path, better: int
):
    folder = shutil.copytree(finished, tmp_path / "run")
    path = folder / "checkpoints" / f"stage{better}-best.npz"
    stored = arrays(path)
    best = json.loads(stored["progress"].tobytes()) | {"best_rsum": 601.0}
    stored["progress"] = np.frombuffer(json.dumps(best).encode(), np.uint8)
    np.savez(path, **stored)
    run = load_run(folder)
    assert run.checkpoint == path
    named = {name.split(" ", 1)[1]: value for name, value in stored.items() if " " in name}
    for variable in run.model.trainable_variables:
        np.testing.assert_array_equal(variable.numpy(), named[variable.path])


def test_validations_are_not_traced_anew(scenes: Path, tmp_path: Path):
    # TensorFlow warns of the fifth function of a kind that is traced within some calls.
    process = start(scenes, tmp_path / "run", stage1__epochs=6, stage2__epochs=0)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "retracing" not in errors


# --- killed and resumed ---------------------------------------------------------------------------


def test_a_run_killed_in_both_stages_ends_as_if_nothing_had_happened(
    scenes: Path, finished: Path, tmp_path: Path
):
    # One by the clock, one while a checkpoint is being written; the proof of `make slow` kills
    # more often.
    kill_often(scenes, tmp_path / "killed", (1, 1), STEPS, random.Random(0), seconds=20)
    assert differences(finished, tmp_path / "killed") == []
    names = sorted(item.name for item in (finished / "checkpoints").iterdir())
    assert sorted(item.name for item in (tmp_path / "killed/checkpoints").iterdir()) == names


def test_sigterm_ends_the_step_in_flight_writes_it_and_exits_with_its_own_status(
    scenes: Path, finished: Path, tmp_path: Path
):
    run, minutes = tmp_path / "stopped", Config().checkpoint_minutes
    process = start(scenes, run, program=held(1, 6), checkpoint_minutes=minutes)
    await_held(process)
    assert not (run / "checkpoints").exists(), "five steps are done, and none is written"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate("go on\n", timeout=STOPPED_WITHIN)
    assert process.returncode == 75
    line = "stopped in stage 1: the same command with --resume goes on there"
    assert errors.splitlines()[-1] == line
    assert [item.name for item in (run / "checkpoints").iterdir()] == ["stage1-last.npz"]
    assert (progress(run, 1)["epoch"], progress(run, 1)["step"]) == (0, 6)
    assert run_tiny(scenes, run, "--resume", checkpoint_minutes=minutes) == 0
    assert differences(finished, run) == []


def test_a_resumed_epoch_reads_the_records_of_the_steps_that_are_left(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    read, keep, done = [], RecordReader.__call__, 7

    def count(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        tf.numpy_function(read.append, [index], [])
        return keep(self, index)

    options = {"stage1__epochs": 0, "stage2__epochs": 1}
    # Asked once before the first step, and after each of them.
    asked = iter([False] * done)
    monkeypatch.setattr(RecordReader, "__call__", count)
    with pytest.raises(Stopped):
        train.train(config(**options), scenes, tmp_path / "run", stop=lambda: next(asked, True))
    assert progress(tmp_path / "run", 2)["step"] == done
    read.clear()
    train.train(config(**options), scenes, tmp_path / "run", resume=True)
    left = Order(OPTIONS["seed"] + 2000, 48, BATCH).steps(done, STEPS)
    # Keras takes a look at the first of them before it trains on any.
    assert set(map(int, read)) == {int(place) for places, _ in left for place in places}


def test_a_stop_while_features_are_cached_leaves_no_part_of_them(scenes: Path, tmp_path: Path):
    leave = shutil.ignore_patterns("features", "scenes")
    data = shutil.copytree(scenes, tmp_path / "data", ignore=leave)
    # Asked before the stage begins, and then after the first images.
    asked = iter([False, True])
    with pytest.raises(Stopped, match="stopped in stage 1: .* --resume"):
        train.train(config(), data, tmp_path / "run", stop=lambda: next(asked))
    assert list((data / "features").iterdir()) == []
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_disk_that_fills_while_training_is_one_line(
    scenes: Path, finished: Path, tmp_path: Path, capsys
):
    run = tmp_path / "run"
    run.mkdir()
    once = {"stage1__epochs": 1, "stage2__epochs": 0, "checkpoint_minutes": 0}
    # Room for two checkpoints of 1.3 MB, and none for the third that is to replace one.
    with mounted(run, "size=3m"):
        status = run_tiny(scenes, run, **once)
        expect_mistake(capsys, status, "No space left", str(run), "make room", "--resume")
        # The last one but one stands, and nothing half-written.
        names = {item.name for item in (run / "checkpoints").iterdir()}
        assert names == {"stage1-last.npz", "stage1-previous.npz"}
        assert progress(run, 1)["step"] == 2


def test_a_finished_run_resumed_has_nothing_left_to_do(
    scenes: Path, finished: Path, tmp_path: Path
):
    run = shutil.copytree(finished, tmp_path / "run")
    before = {p: p.read_bytes() for p in (run / "checkpoints").iterdir()}
    assert run_tiny(scenes, run, "--resume") == 0
    assert {p: p.read_bytes() for p in (run / "checkpoints").iterdir()} == before
    assert history(run) == history(finished)


def test_a_run_is_resumed_from_another_working_folder(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    vectors, run = tmp_path / "vectors.txt", tmp_path / "run"
    vectors.write_text("red 1 2 3 4 5 6 7 8\nzebra 1 2 3 4 5 6 7 8\n")
    once = {"stage1__epochs": 1, "stage2__epochs": 0}
    monkeypatch.chdir(tmp_path)
    assert run_tiny(scenes, run, vectors="vectors.txt", **once) == 0
    size = Manifest.load(scenes).vocabulary_size
    # 12 scenes each for test and validation come first.
    captions = [text for number in range(24, 72) for text in make_scene(0, number).captions]
    counts = count_words(captions, lowercase=True)
    share = 100 * counts["red"] / counts.total()
    logged = capsys.readouterr().err
    assert f"1 of {size} words" in logged and f" {share:.1f} % " in logged and share > 1
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run_tiny(scenes, run, "--resume", vectors="../vectors.txt", **once) == 0


def test_a_second_stage_alone_starts_from_the_best_of_a_run(
    scenes: Path, finished: Path, tmp_path: Path
):
    run = tmp_path / "second"
    # At rate 0 nothing but BatchNorm's averages and dropout's seeds moves.
    frozen = {"stage2__learning_rate": 0.0, "stage2__epochs": 1}
    assert run_tiny(scenes, run, "--stage", "2", "--init-from", str(finished), **frozen) == 0
    files = {item.name for item in (run / "checkpoints").iterdir()}
    # One epoch, one checkpoint: there is none before it.
    assert files == {"stage2-best.npz", "stage2-last.npz"}
    origin, model = load_run(finished).model, load_run(run).model
    for before, after in zip(origin.trainable_variables, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(after.numpy(), before.numpy(), err_msg=after.path)


# --- refused --------------------------------------------------------------------------------------


def test_a_folder_that_is_not_empty_is_refused(scenes: Path, tmp_path: Path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    expect_mistake(capsys, run_tiny(scenes, tmp_path), str(tmp_path), "not empty", "--resume")
    assert [item.name for item in tmp_path.iterdir()] == ["notes.txt"]


def test_resuming_with_another_configuration_is_refused(
    scenes: Path, finished: Path, tmp_path: Path, capsys
):
    run = shutil.copytree(finished, tmp_path / "run")
    status = run_tiny(scenes, run, "--resume", seed=8, stage2__learning_rate=0.5)
    expect_mistake(capsys, status, "config.json", "seed", "stage2", "same options")


def test_resuming_nothing_is_refused(scenes: Path, tmp_path: Path, capsys):
    expect_mistake(capsys, run_tiny(scenes, tmp_path / "no", "--resume"), "no", "is not a run")
    assert not (tmp_path / "no").exists()


def test_a_run_that_another_process_trains_is_refused(
    scenes: Path, finished: Path, tmp_path: Path, capsys
):
    run = shutil.copytree(finished, tmp_path / "run")
    before = {item: item.read_bytes() for item in run.rglob("*") if item.is_file()}
    with sole_writer(run):
        expect_mistake(capsys, run_tiny(scenes, run, "--resume"), "another process", str(run))
    assert {item: item.read_bytes() for item in run.rglob("*") if item.is_file()} == before


@pytest.fixture(scope="module")
def other_scenes(scenes: Path, tmp_path_factory) -> Path:
    """The same images with another vocabulary, as another `prepare` would have made."""
    from tf_dpce.files import sha256_file, write_json

    folder = tmp_path_factory.mktemp("other") / "data"
    shutil.copytree(scenes, folder, ignore=shutil.ignore_patterns("features", "scenes"))
    path = folder / "vocabulary.txt"
    path.write_text("zebra\n" + path.read_text())
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["vocabulary_sha256"] = sha256_file(path)
    manifest["vocabulary_size"] += 1
    write_json(folder / "manifest.json", manifest)
    return folder


def test_resuming_on_other_data_is_refused(
    other_scenes: Path, finished: Path, tmp_path: Path, capsys
):
    run = shutil.copytree(finished, tmp_path / "run")
    status = run_tiny(other_scenes, run, "--resume")
    expect_mistake(capsys, status, "vocabulary_sha256", "same prepared data")


def test_starting_from_a_run_of_another_vocabulary_is_refused(
    other_scenes: Path, finished: Path, tmp_path: Path, capsys
):
    more = ("--stage", "2", "--init-from", str(finished))
    status = run_tiny(other_scenes, tmp_path / "run", *more)
    expect_mistake(capsys, status, str(finished), "another vocabulary")


def test_starting_from_what_is_no_run_is_refused(scenes: Path, tmp_path: Path, capsys):
    more = ("--stage", "2", "--init-from", str(tmp_path / "missing"))
    status = run_tiny(scenes, tmp_path / "run", *more)
    expect_mistake(capsys, status, "missing", "is not a run")


def test_starting_from_the_same_images_in_another_order_is_refused(
    scenes: Path, finished: Path, tmp_path: Path, capsys
):
    prepare_again(scenes, tmp_path / "data", seed=1)
    more = ("--stage", "2", "--init-from", str(finished))
    status = run_tiny(tmp_path / "data", tmp_path / "run", *more)
    expect_mistake(capsys, status, str(finished), "in another order")
    assert not (tmp_path / "run").exists()


def test_starting_from_a_checkpoint_of_another_architecture_is_refused(
    scenes: Path, finished: Path, tmp_path: Path, capsys
):
    more = ("--stage", "2", "--init-from", str(finished))
    status = run_tiny(scenes, tmp_path / "run", *more, image__head_dim=16)
    expect_mistake(capsys, status, str(finished), "is of another model", "(512, 8)", "(512, 16)")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stage1__epochs": 0, "stage2__epochs": 0}, ("nothing to train", "give --preset")),
        ({"stage2__batch_size": 49}, ("48 training images", "lower --stage2.batch_size")),
        ({"stage2__batch_size": 5}, ("--stage2.batch_size 5", "a multiple of 2")),
        ({"stage1__batch_size": 0}, ("stage1.batch_size cannot be 0", "1 or more")),
        ({"seed": -1}, ("seed cannot be -1", "from 0")),
    ],
)
def test_what_no_stage_can_be_made_of_is_refused_before_anything_is_built(
    scenes: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, changes: dict, words
):
    monkeypatch.setattr(train, "starting_model", None)
    expect_mistake(capsys, run_tiny(scenes, tmp_path / "run", **changes), *words)
    assert not (tmp_path / "run").exists()


def test_a_second_stage_from_nowhere_is_refused(scenes: Path, tmp_path: Path, capsys):
    status = run_tiny(scenes, tmp_path / "run", "--stage", "2")
    expect_mistake(capsys, status, "--stage 2 needs --init-from RUN")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "more",
    [
        ("--preset", "flickr9k"),
        ("--stage1.epoch", "1"),
        ("--stage1.epochs", "two"),
        ("--stage", "3"),
        ("--stage1.optimizer", "rmsprop"),
    ],
)
def test_an_unknown_preset_key_or_value_is_bad_usage(
    scenes: Path, tmp_path: Path, capsys, more: tuple[str, ...]
):
    with pytest.raises(SystemExit) as exit:
        run_tiny(scenes, tmp_path / "run", *more)
    assert exit.value.code == 2
    assert "error:" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"image__backbone": "ResNet51"}, "unknown backbone ResNet51"),
        ({"vectors": "missing.npz"}, "missing.npz does not exist"),
        ({"image__backbone": "VGG16", "weights": "missing.h5"}, "missing.h5 does not exist"),
    ],
)
def test_what_a_model_cannot_be_made_of_is_refused(
    scenes: Path, tmp_path: Path, capsys, changes: dict, word: str
):
    expect_mistake(capsys, run_tiny(scenes, tmp_path / "run", **changes), word)
    assert not (tmp_path / "run").exists(), "the same --run can be given again"


def test_a_run_without_a_checkpoint_cannot_be_loaded(finished: Path, tmp_path: Path):
    run = shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("*.npz"))
    with pytest.raises(UserError, match="stage1-best.npz does not exist"):
        load_run(run)


def test_a_run_whose_vocabulary_was_exchanged_cannot_be_loaded(finished: Path, tmp_path: Path):
    run = shutil.copytree(finished, tmp_path / "run")
    with (run / "vocabulary.txt").open("a") as stream:
        stream.write("zebra\n")
    with pytest.raises(UserError, match="not the vocabulary that the run was trained with"):
        load_run(run)


def test_a_start_that_was_killed_is_no_hindrance(scenes: Path, tmp_path: Path, monkeypatch):
    run, once = tmp_path / "run", {"stage1__epochs": 1, "stage2__epochs": 0}
    with monkeypatch.context() as patch:
        patch.setattr(train, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run_tiny(scenes, run, **once) == 130
    assert [item.name for item in run.iterdir()] == ["vocabulary.txt"]
    assert run_tiny(scenes, run, **once) == 0
    assert load_run(run).config.seed == OPTIONS["seed"]


def test_a_run_of_an_earlier_version_can_be_loaded(finished: Path, tmp_path: Path):
    run = shutil.copytree(finished, tmp_path / "run")
    saved = json.loads((run / "config.json").read_text())
    del saved["data"]["train_digest"]
    (run / "config.json").write_text(json.dumps(saved))
    assert load_run(run).tokenizer.words


@pytest.mark.parametrize("content", ['{"model_type": "clip"}', '{"config": {}, "data": 3}', "[1]"])
def test_a_config_of_something_else_is_told(tmp_path: Path, content: str):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match="is not a run: its config.json was written by something"):
        load_run(tmp_path)


def test_what_is_no_run_cannot_be_loaded(tmp_path: Path):
    with pytest.raises(UserError, match="is not a run: it has no config.json"):
        load_run(tmp_path)
