"""Files of the right name that are not what belongs there: one line, with a remedy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import evaluate
from tests.unit.training.tiny import run_tiny
from tf_dpce.files import read_json, sha256_file, write_json

FIRST = {"stage1__epochs": 1, "stage2__epochs": 0}


def expect_mistake(capsys: pytest.CaptureFixture, status: int, *words: str) -> None:
    assert status == 1
    # Lines about the features come before it.
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and all(word in line for word in words), line


@pytest.fixture
def data(scenes: Path, tmp_path: Path) -> Path:
    """A copy of the scenes to damage."""
    leave = shutil.ignore_patterns("features", "scenes")
    return shutil.copytree(scenes, tmp_path / "data", ignore=leave)


def flip_a_byte(path: Path) -> None:
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 0xFF
    path.write_bytes(contents)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize("backbone", ["cached", "trained"])
def test_a_damaged_shard_is_named_where_it_is_trained_on(
    data: Path, tmp_path: Path, capsys, backbone: str
):
    path = sorted(data.glob("train-*.tfrecord"))[1]
    flip_a_byte(path)
    status = run_tiny(data, tmp_path / "run", **FIRST, stage1__backbone=backbone)
    expect_mistake(capsys, status, f"{path} is damaged", "run prepare again")


def test_a_damaged_shard_is_named_where_it_is_judged(
    data: Path, finished: Path, tmp_path: Path, capsys
):
    path = sorted(data.glob("test-*.tfrecord"))[0]
    flip_a_byte(path)
    run = shutil.copytree(finished, tmp_path / "run")
    status = evaluate.main(["--run", str(run), "--data", str(data), "--split", "test"])
    expect_mistake(capsys, status, f"{path} is damaged", "run prepare again")


@pytest.mark.parametrize("words", [None, "zebra\n"])
def test_a_vocabulary_of_other_data_is_refused_before_anything_is_written(
    data: Path, tmp_path: Path, capsys, words: str | None
):
    path = data / "vocabulary.txt"
    path.unlink() if words is None else path.write_text(words + path.read_text())
    status = run_tiny(data, tmp_path / "run", **FIRST)
    expect_mistake(capsys, status, str(path), "not the vocabulary", "run prepare again")
    assert not (tmp_path / "run").exists()


def test_a_damaged_last_checkpoint_gives_way_to_the_one_before_where_it_is_judged(
    scenes: Path, finished: Path, tmp_path: Path, capsys
):
    run = shutil.copytree(finished, tmp_path / "run")
    last = run / "checkpoints" / "stage2-last.npz"
    flip_a_byte(last)
    options = ["--run", str(run), "--data", str(scenes), "--split", "test", "--checkpoint", "last"]
    assert evaluate.main(options) == 0
    out = capsys.readouterr().out
    assert f"{last} is damaged: its checksum is another: going on with the one before, " in out
    (saved,) = run.glob("metrics-*.json")
    previous = run / "checkpoints" / "stage2-previous.npz"
    assert read_json(saved)["checkpoint_sha256"] == sha256_file(previous)


@pytest.fixture(scope="module")
def other(scenes: Path, tmp_path_factory) -> Path:
    """A run whose every shape is that of `finished`."""
    folder = tmp_path_factory.mktemp("other") / "run"
    assert run_tiny(scenes, folder, **FIRST, seed=99, model__dropout=0.1) == 0
    return folder


# Of the stage that the run stands in both are needed, of the one before it what it is judged by.
@pytest.mark.parametrize("name", ["stage2-last.npz", "stage2-best.npz", "stage1-best.npz"])
def test_a_checkpoint_of_another_run_is_refused(
    scenes: Path, finished: Path, other: Path, tmp_path: Path, capsys, name: str
):
    run = shutil.copytree(finished, tmp_path / "run")
    path = run / "checkpoints" / name
    shutil.copy(other / "checkpoints" / name.replace("stage2", "stage1"), path)
    before = path.read_bytes()
    status = run_tiny(scenes, run, "--resume")
    expect_mistake(capsys, status, str(path), "another run", "put this run's own file back")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (flip_a_byte, ("damaged: its checksum is another",)),
        (cut_short, ("damaged: File is not a zip file",)),
        (Path.unlink, ("does not exist", "Train it on with --resume")),
    ],
)
@pytest.mark.parametrize("verb", ["evaluate", "train"])
def test_best_weights_that_are_lost_are_told_with_what_to_do(
    scenes: Path, other: Path, tmp_path: Path, capsys, verb: str, harm: Callable, words: tuple
):
    origin, run = shutil.copytree(other, tmp_path / "origin"), tmp_path / "run"
    path = origin / "checkpoints" / "stage1-best.npz"
    harm(path)
    if verb == "train":
        status = run_tiny(scenes, run, "--init-from", str(origin), **FIRST)
    else:
        status = evaluate.main(["--run", str(origin), "--data", str(scenes)])
    expect_mistake(capsys, status, str(path), "put a copy", *words)


@pytest.mark.parametrize(
    ("part", "key", "value", "words"),
    [
        ("config", "sead", 7, ("sead",)),
        ("config", "seed", "seven", ("seed", "seven")),
        ("config", "image", None, ("image cannot be None",)),
        ("data", "vocabulary_sha256", None, ("does not say vocabulary_sha256 of the data",)),
        ("data", "num_instances", "x", ("does not say num_instances of the data",)),
    ],
)
def test_a_config_that_cannot_be_read_is_named(
    scenes: Path, finished: Path, tmp_path: Path, capsys, part: str, key: str, value, words: tuple
):
    run = shutil.copytree(finished, tmp_path / "run")
    saved = read_json(run / "config.json")
    saved[part][key] = value
    write_json(run / "config.json", saved)
    told = (str(run / "config.json"), "put the run's own file back", *words)
    expect_mistake(capsys, evaluate.main(["--run", str(run), "--data", str(scenes)]), *told)
    if part == "config":
        expect_mistake(capsys, run_tiny(scenes, run, "--resume"), *told)


def test_a_run_without_its_vocabulary_is_told_where_to_get_it(
    scenes: Path, finished: Path, tmp_path: Path, capsys
):
    run = shutil.copytree(finished, tmp_path / "run")
    path = run / "vocabulary.txt"
    path.unlink()
    status = evaluate.main(["--run", str(run), "--data", str(scenes)])
    expect_mistake(capsys, status, f"{path} is missing", "in the data that it was trained on")


@pytest.mark.parametrize("harm", [Path.unlink, flip_a_byte])
def test_a_resumed_run_gets_its_vocabulary_back(
    scenes: Path, finished: Path, tmp_path: Path, capsys, harm: Callable
):
    run = shutil.copytree(finished, tmp_path / "run")
    path = run / "vocabulary.txt"
    harm(path)
    assert run_tiny(scenes, run, "--resume") == 0
    assert path.read_bytes() == (finished / "vocabulary.txt").read_bytes()
    line = f"{path} was lost: put back from {scenes / 'vocabulary.txt'}"
    assert line in capsys.readouterr().out.splitlines()


def test_a_run_may_start_from_one_of_other_options(scenes: Path, other: Path, tmp_path: Path):
    assert run_tiny(scenes, tmp_path / "run", "--init-from", str(other), **FIRST) == 0


def test_a_damaged_history_is_told_before_the_first_step(
    scenes: Path, finished: Path, tmp_path: Path, capsys
):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "history.csv").write_text("hello\n1,2\n")
    status = run_tiny(scenes, run, "--resume")
    expect_mistake(capsys, status, f"{run / 'history.csv'} is damaged", "remove it")
