"""The state of a run in one file."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from tf_dpce.errors import UserError
from tf_dpce.search.fingerprint import model_digest
from tf_dpce.training.checkpoint import (
    Progress,
    check_own,
    check_values,
    checkpoint_path,
    read_progress,
    restore_checkpoint,
    save_checkpoint,
)
from tf_dpce.training.kept import find_checkpoint, restore_last

PROGRESS = Progress(stage=2, epoch=3, step=17, best_rsum=123.25)
START = Progress(stage=1, epoch=0, step=0, best_rsum=-1.0, run="own")


def variables(seed: int = 0, width: int = 3, name: str = "kernel") -> list[keras.Variable]:
    draw = np.random.default_rng(seed)
    return [
        keras.Variable(draw.normal(size=(2, width)), dtype="float32", name=name),
        keras.Variable(draw.integers(0, 9, 4), dtype="int32", name="count", trainable=False),
        keras.Variable(draw.normal(), dtype="float32", name="scalar"),
    ]


def values(items: list[keras.Variable]) -> list[list]:
    return [item.numpy().tolist() for item in items]


def test_what_is_saved_is_restored(tmp_path: Path):
    path = tmp_path / "last.npz"
    save_checkpoint(path, variables(0), PROGRESS)
    restored = variables(1)
    assert values(restored) != values(variables(0))
    progress, rest = restore_checkpoint(path, restored)
    assert progress == PROGRESS and rest == []
    assert values(restored) == values(variables(0))
    assert [item.dtype for item in restored] == ["float32", "int32", "float32"]
    assert [item.name for item in tmp_path.iterdir()] == ["last.npz"]


def test_saving_replaces_what_was_there(tmp_path: Path):
    path = tmp_path / "last.npz"
    save_checkpoint(path, variables(0), Progress(1, 0, 0, -1.0))
    save_checkpoint(path, variables(2), PROGRESS)
    restored = variables(1)
    assert restore_checkpoint(path, restored)[0] == PROGRESS
    assert values(restored) == values(variables(2))


def test_what_is_left_over_comes_back_in_order(tmp_path: Path):
    path = tmp_path / "last.npz"
    save_checkpoint(path, variables(0), PROGRESS)
    restored = variables(1)
    _, rest = restore_checkpoint(path, restored[:1])
    assert [array.tolist() for array in rest] == values(variables(0))[1:]
    assert values(restored)[1:] == values(variables(1))[1:]


def test_a_save_that_fails_leaves_the_former_file(tmp_path: Path):
    path = tmp_path / "last.npz"
    save_checkpoint(path, variables(0), PROGRESS)
    with pytest.raises(AttributeError):
        save_checkpoint(path, [*variables(2), object()], PROGRESS)
    restored = variables(1)
    restore_checkpoint(path, restored)
    assert values(restored) == values(variables(0))
    assert [item.name for item in tmp_path.iterdir()] == ["last.npz"]


def test_a_save_holds_no_copy_of_what_it_saves(tmp_path: Path):
    # Of 64 MiB each, written in pieces of 1 MiB.
    matrices = [keras.Variable(np.full((1 << 12, 1 << 12), place, np.float32)) for place in (1, 2)]
    tracemalloc.start()
    try:
        save_checkpoint(tmp_path / "last.npz", matrices, PROGRESS)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 8 << 20
    assert (tmp_path / "last.npz").stat().st_size > 128 << 20


@pytest.mark.parametrize("lost", [float("nan"), float("inf"), -float("inf"), 2e19])
def test_weights_that_are_lost_replace_no_checkpoint(tmp_path: Path, lost: float):
    last, previous = (checkpoint_path(tmp_path, 2, kind) for kind in ("last", "previous"))
    for step in (1, 2):
        save_checkpoint(last, variables(step), replace(PROGRESS, step=step), previous)
    before = [path.read_bytes() for path in (last, previous)]
    wild = variables(3)
    wild[0].assign(np.full((2, 3), [1.0, lost, 2.0]))
    told = "kernel is out of range in stage 2, epoch 4: train anew with a lower --stage2.learning_r"
    with pytest.raises(UserError, match=told):
        check_values(wild, PROGRESS)
    with pytest.raises(UserError, match=told):
        save_checkpoint(last, wild, PROGRESS, previous)
    assert [path.read_bytes() for path in (last, previous)] == before
    assert sorted(last.parent.iterdir()) == [last, previous]


def test_the_number_of_a_seed_generator_does_not_matter(tmp_path: Path):
    path = tmp_path / "last.npz"
    generators = [keras.random.SeedGenerator(seed) for seed in (1, 2)]
    assert generators[0].state.path != generators[1].state.path
    save_checkpoint(path, [generators[0].state], PROGRESS)
    restore_checkpoint(path, [generators[1].state])
    assert generators[1].state.numpy().tolist() == generators[0].state.numpy().tolist()


def test_a_missing_file_is_the_users_mistake(tmp_path: Path):
    with pytest.raises(UserError, match="last.npz does not exist"):
        restore_checkpoint(tmp_path / "last.npz", variables())


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_file_cut_short_is_the_users_mistake(tmp_path: Path, share: float):
    path = tmp_path / "last.npz"
    save_checkpoint(path, variables(), PROGRESS)
    contents = path.read_bytes()
    path.write_bytes(contents[: int(share * len(contents))])
    with pytest.raises(UserError, match="last.npz is damaged"):
        restore_checkpoint(path, variables())


def test_flipped_bytes_are_the_users_mistake(tmp_path: Path):
    path = tmp_path / "last.npz"
    save_checkpoint(path, variables(), PROGRESS)
    contents = bytearray(path.read_bytes())
    # Inside the stored values, which carry a checksum.
    place = contents.index(variables()[0].numpy().tobytes())
    contents[place] ^= 0xFF
    path.write_bytes(contents)
    with pytest.raises(UserError, match="last.npz is damaged"):
        restore_checkpoint(path, variables())


@pytest.mark.parametrize("contents", [b"", b"not an archive", b"PK\x03\x04" + bytes(50)])
def test_another_kind_of_file_is_the_users_mistake(tmp_path: Path, contents: bytes):
    path = tmp_path / "last.npz"
    path.write_bytes(contents)
    with pytest.raises(UserError, match="last.npz is damaged"):
        restore_checkpoint(path, variables())


def test_an_archive_of_something_else_is_the_users_mistake(tmp_path: Path):
    path = tmp_path / "last.npz"
    np.savez(path, words=np.arange(3))
    with pytest.raises(UserError, match="last.npz is damaged"):
        restore_checkpoint(path, variables())
    np.save(tmp_path / "array.npy", np.arange(3))
    (tmp_path / "array.npy").rename(path)
    with pytest.raises(UserError, match="last.npz is damaged"):
        restore_checkpoint(path, variables())


@pytest.mark.parametrize("other", [{"width": 4}, {"name": "bias"}])
def test_a_checkpoint_of_another_model_changes_nothing(tmp_path: Path, other: dict):
    path = tmp_path / "last.npz"
    save_checkpoint(path, variables(0), PROGRESS)
    restored = variables(1, **other)
    before = values(restored)
    with pytest.raises(UserError, match="last.npz is of another model: it holds kernel"):
        restore_checkpoint(path, restored)
    assert values(restored) == before


def test_a_checkpoint_of_a_smaller_model_is_the_users_mistake(tmp_path: Path):
    path = tmp_path / "last.npz"
    save_checkpoint(path, variables(0)[:2], PROGRESS)
    with pytest.raises(UserError, match="holds 2 variables, the model 3: give the options"):
        restore_checkpoint(path, variables(1))


def test_the_names_of_checkpoints():
    assert checkpoint_path(Path("run"), 2, "best") == Path("run/checkpoints/stage2-best.npz")


# --- the last two ---------------------------------------------------------------------------------


def keep_two(run: Path) -> tuple[Path, Path]:
    last, previous = (checkpoint_path(run, 1, kind) for kind in ("last", "previous"))
    for step in (1, 2, 3):
        save_checkpoint(last, variables(step), replace(START, step=step), previous)
    return last, previous


def resumed(run: Path) -> tuple[int | None, list[str]]:
    """The step that a run goes on after, and what it says."""
    said: list[str] = []
    restored = variables(0)
    found = restore_last(run, START, restored, said.append)
    if found is not None:
        assert values(restored) == values(variables(found[0].step))
    return (found and found[0].step), said


def test_a_run_goes_on_after_its_last_checkpoint(tmp_path: Path):
    assert resumed(tmp_path) == (None, [])
    keep_two(tmp_path)
    assert resumed(tmp_path) == (3, [])


def test_a_damaged_last_one_gives_way_to_the_one_before(tmp_path: Path):
    last, previous = keep_two(tmp_path)
    last.write_bytes(last.read_bytes()[:-200])
    step, (line,) = resumed(tmp_path)
    assert step == 2
    assert str(last) in line and "damaged" in line and "stage1-previous.npz" in line
    # From now on it is the last one: the damaged one never takes its place.
    assert resumed(tmp_path) == (2, []) and not previous.exists()


def test_a_damaged_last_one_gives_way_where_a_run_is_judged_too(tmp_path: Path):
    last, previous = keep_two(tmp_path)
    said: list[str] = []
    assert find_checkpoint(tmp_path, "last", said.append) == last and said == []
    last.write_bytes(last.read_bytes()[:-200])
    assert find_checkpoint(tmp_path, "last", said.append) == previous
    (line,) = said
    assert str(last) in line and "going on with the one before, stage1-previous.npz" in line
    # Who only reads leaves both where they are: a run may be going on there.
    assert last.exists() and previous.exists()
    previous.unlink()
    with pytest.raises(UserError, match="stage1-last.npz is damaged: .* no older one"):
        find_checkpoint(tmp_path, "last")


def test_a_kill_between_two_renames_loses_nothing(tmp_path: Path):
    last, _ = keep_two(tmp_path)
    last.unlink()
    assert find_checkpoint(tmp_path, "last").name == "stage1-previous.npz"
    assert resumed(tmp_path) == (2, [])


def test_two_damaged_ones_are_told(tmp_path: Path):
    last, previous = keep_two(tmp_path)
    for path in (last, previous):
        path.write_bytes(b"cut")
    told = "stage1-previous.npz is damaged: .*, and so is stage1-last.npz: .* train anew"
    with pytest.raises(UserError, match=told):
        resumed(tmp_path)
    previous.unlink()
    with pytest.raises(UserError, match="stage1-last.npz is damaged: .* no older one: .* anew"):
        resumed(tmp_path)


def test_a_checkpoint_of_another_model_is_not_passed_over(tmp_path: Path):
    keep_two(tmp_path)
    with pytest.raises(UserError, match="stage1-last.npz is of another model"):
        restore_last(tmp_path, START, variables(0, width=4), lambda line: None)


@pytest.mark.parametrize("kind", ["last", "previous"])
@pytest.mark.parametrize("other", [{"run": "another's"}, {"stage": 2}])
def test_a_checkpoint_of_another_run_or_stage_changes_nothing(
    tmp_path: Path, other: dict, kind: str
):
    path = checkpoint_path(tmp_path, 1, kind)
    save_checkpoint(path, variables(1), replace(START, **other))
    restored = variables(0)
    told = f"stage1-{kind}.npz was written by another run or stage: put this run's own file back"
    with pytest.raises(UserError, match=told):
        restore_last(tmp_path, START, restored, lambda line: None)
    with pytest.raises(UserError, match=told):
        check_own(path, START)
    assert values(restored) == values(variables(0))
    # As something to begin with, that of any run will do.
    assert restore_checkpoint(path, restored)[0].run == other.get("run", "own")


def test_a_checkpoint_without_a_digest_is_taken_for_the_runs_own(tmp_path: Path):
    path = checkpoint_path(tmp_path, 1, "last")
    save_checkpoint(path, variables(1), PROGRESS)
    stored = dict(np.load(path))
    # As an earlier version wrote it.
    before = {"stage": 1, "epoch": 3, "step": 17, "best_rsum": 123.25}
    stored["progress"] = np.frombuffer(json.dumps(before).encode(), np.uint8)
    np.savez(path, **stored)
    assert restore_last(tmp_path, START, variables(0), print)[0] == Progress(1, 3, 17, 123.25, "")


# --- which one a run is known by ------------------------------------------------------------------


def keep(run: Path, stage: int, kind: str, rsum: float = 0.0) -> Path:
    path = checkpoint_path(run, stage, kind)
    save_checkpoint(path, [], Progress(stage, 1, 0, rsum))
    return path


@pytest.mark.parametrize(
    ("first", "second", "stage"), [(310.5, 290.0, 1), (290, 310, 2), (9, 9, 2)]
)
def test_the_best_is_that_of_the_higher_rsum(
    tmp_path: Path, first: float, second: float, stage: int
):
    best = {1: keep(tmp_path, 1, "best", first)}
    assert find_checkpoint(tmp_path, "best") == best[1]
    best[2] = keep(tmp_path, 2, "best", second)
    assert find_checkpoint(tmp_path, "best") == best[stage]


def test_the_last_is_that_of_the_latest_stage(tmp_path: Path):
    first = keep(tmp_path, 1, "last", 310.5)
    assert find_checkpoint(tmp_path, "last") == first
    second = keep(tmp_path, 2, "last", 290.0)
    assert find_checkpoint(tmp_path, "last") == second


@pytest.mark.parametrize("kind", ["best", "last"])
def test_a_run_without_a_checkpoint_has_none_to_find(tmp_path: Path, kind: str):
    with pytest.raises(UserError, match=f"stage1-{kind}.npz does not exist: has the run been"):
        find_checkpoint(tmp_path, kind)


def test_a_damaged_one_of_two_is_told(tmp_path: Path):
    keep(tmp_path, 1, "best")
    keep(tmp_path, 2, "best").write_bytes(b"cut")
    with pytest.raises(UserError, match="stage2-best.npz is damaged"):
        find_checkpoint(tmp_path, "best")


def test_the_progress_is_read_without_a_model(tmp_path: Path):
    save_checkpoint(tmp_path / "last.npz", variables(), PROGRESS)
    assert read_progress(tmp_path / "last.npz") == PROGRESS
    with pytest.raises(UserError, match="no.npz does not exist"):
        read_progress(tmp_path / "no.npz")


def test_vectors_and_their_digest_are_of_the_same_checkpoint(tmp_path: Path):
    keep(tmp_path, 1, "best", 310.5)
    for name in ("config.json", "vocabulary.txt"):
        (tmp_path / name).write_text("{}")
    before = model_digest(tmp_path)
    keep(tmp_path, 2, "best", 290.0)
    assert model_digest(tmp_path) == before, "stage 1 is still the best"
    keep(tmp_path, 2, "best", 320.0)
    assert model_digest(tmp_path) != before
