"""Checkpoints: what is saved comes back, damage is noticed, the newest readable one is taken."""

from __future__ import annotations

import hashlib
import logging
import tracemalloc
from dataclasses import asdict, replace
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.errors import raises
from tf_dpce.config import Config, to_dict
from tf_dpce.files import sha256_file, write_json
from tf_dpce.search.embedding.fingerprint import model_digest
from tf_dpce.training.best_epoch import NO_SCORE
from tf_dpce.training.checkpoint import (
    Progress,
    best_path,
    check_values,
    find_checkpoint,
    newest_readable,
    read_progress,
    restore_checkpoint,
    save_checkpoint,
    save_state,
    state_paths,
)
from tf_dpce.training.sealed_arrays import open_arrays, write_arrays

PROGRESS = Progress(stage=2, epoch=3, step=17, best_score=123.25)
OWN = Progress(stage=1, epoch=0, step=0, best_score=NO_SCORE, run="own")
ARRAYS = {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "count": np.array(7)}


def variables(seed: int = 0, width: int = 3, name: str = "kernel") -> list[keras.Variable]:
    draw = np.random.default_rng(seed)
    return [
        keras.Variable(draw.normal(size=(2, width)), dtype="float32", name=name),
        keras.Variable(draw.integers(0, 9, 4), dtype="int32", name="count", trainable=False),
        keras.Variable(draw.normal(), dtype="float32", name="scalar"),
    ]


def values(items: list[keras.Variable]) -> list[list]:
    return [item.numpy().tolist() for item in items]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A checkpoint of `variables(0)`."""
    save_checkpoint(tmp_path / "a.npz", variables(0), PROGRESS)
    return tmp_path / "a.npz"


# --- a file ---------------------------------------------------------------------------------------


def test_what_is_saved_is_restored(path: Path):
    restored = variables(1)
    assert restore_checkpoint(path, restored) == (PROGRESS, [])
    assert values(restored) == values(variables(0))
    assert [item.dtype for item in restored] == ["float32", "int32", "float32"]
    assert read_progress(path) == PROGRESS
    # Values behind those of the variables are returned in order.
    _, rest = restore_checkpoint(path, restored[:1])
    assert [array.tolist() for array in rest] == values(variables(0))[1:]
    # What replaces it is restored just so, and nothing else is left.
    save_checkpoint(path, variables(2), OWN)
    assert restore_checkpoint(path, restored)[0] == OWN
    assert values(restored) == values(variables(2))
    assert list(path.parent.iterdir()) == [path]


def test_a_save_that_fails_leaves_the_former_file(path: Path):
    with pytest.raises(AttributeError):
        save_checkpoint(path, [*variables(2), object()], PROGRESS)
    restored = variables(1)
    restore_checkpoint(path, restored)
    assert values(restored) == values(variables(0))
    assert list(path.parent.iterdir()) == [path]


def test_a_save_holds_no_copy_of_what_it_saves(tmp_path: Path):
    # Of 64 MiB each, written in pieces.
    matrices = [keras.Variable(np.full((1 << 12, 1 << 12), place, np.float32)) for place in (1, 2)]
    tracemalloc.start()
    try:
        save_checkpoint(tmp_path / "a.npz", matrices, PROGRESS)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 24 << 20
    assert (tmp_path / "a.npz").stat().st_size > 128 << 20


def test_weights_out_of_range_replace_no_checkpoint(tmp_path: Path):
    for step in (1, 2):
        save_state(tmp_path, variables(step), replace(PROGRESS, step=step))
    before = [path.read_bytes() for path in state_paths(tmp_path, 2)]
    for lost in (float("nan"), float("inf"), -float("inf"), 2e19):
        wild = variables(3)
        wild[0].assign(np.full((2, 3), [1.0, lost, 2.0]))
        with raises("training.diverged") as caught:
            check_values(wild, PROGRESS)
        # The epoch that it happened in, and the option to lower.
        assert "epoch 4" in str(caught.value) and "--stage2.learning_rate" in str(caught.value)
        with raises("training.diverged"):
            save_state(tmp_path, wild, replace(PROGRESS, step=3))
    assert [path.read_bytes() for path in state_paths(tmp_path, 2)] == before
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_the_number_of_a_seed_generator_does_not_matter(tmp_path: Path):
    generators = [keras.random.SeedGenerator(seed) for seed in (1, 2)]
    assert generators[0].state.path != generators[1].state.path
    save_checkpoint(tmp_path / "a.npz", [generators[0].state], PROGRESS)
    restore_checkpoint(tmp_path / "a.npz", [generators[1].state])
    assert generators[1].state.numpy().tolist() == generators[0].state.numpy().tolist()


def test_a_file_that_is_missing_or_of_another_model_changes_nothing(path: Path):
    for read in (read_progress, lambda path: restore_checkpoint(path, variables())):
        with raises("checkpoint.missing", path=path.with_name("b.npz")):
            read(path.with_name("b.npz"))
    for other in (variables(1, width=4), variables(1, name="bias"), [*variables(1), *variables(1)]):
        before = values(other)
        with raises("checkpoint.model", path=path):
            restore_checkpoint(path, other)
        assert values(other) == before


def test_a_checkpoint_of_another_version_is_named(tmp_path: Path, monkeypatch):
    path = tmp_path / "a.npz"
    fields = asdict(OWN)
    fields["best_rsum"] = fields.pop("best_score")
    with monkeypatch.context() as patched:
        patched.setattr("tf_dpce.training.checkpoint.asdict", lambda progress: fields)
        save_checkpoint(path, variables(1), OWN)
    with raises("checkpoint.version", path=path):
        read_progress(path)


def test_a_checkpoint_of_another_run_or_stage_changes_nothing(tmp_path: Path):
    path, restored = tmp_path / "a.npz", variables(0)
    for other in ({"run": "another's"}, {"stage": 2}, {"run": ""}):
        save_checkpoint(path, variables(1), replace(OWN, **other))
        with raises("checkpoint.foreign", path=path):
            restore_checkpoint(path, restored, (1, "own"))
        with raises("checkpoint.foreign", path=path):
            read_progress(path, (1, "own"))
        assert values(restored) == values(variables(0))
    # To start from, the checkpoint of any run will do.
    assert restore_checkpoint(path, variables(0))[0].run == ""


# --- the seal -------------------------------------------------------------------------------------


def read(path: Path) -> dict[str, np.ndarray]:
    with open_arrays(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def test_arrays_come_back_as_they_went_and_numpy_reads_them_too(tmp_path: Path):
    path = tmp_path / "a.npz"
    write_arrays(path, ARRAYS.items())
    for found in (read(path), dict(np.load(path))):
        assert found.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)
    # The seal is the digest of all before it.
    contents = path.read_bytes()
    digits = hashlib.sha256(contents[:-64]).hexdigest().encode()
    assert contents.endswith(b"sha256 " + digits)


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path: Path):
    path = tmp_path / "a.npz"
    write_arrays(path, ARRAYS.items())
    contents = path.read_bytes()
    for place in range(len(contents)):
        flipped = bytearray(contents)
        flipped[place] ^= 1 << place % 8
        for damaged in (flipped, contents[:place]):
            path.write_bytes(damaged)
            with raises("checkpoint.damaged", path=path):
                read(path)


def test_another_kind_of_file_is_damaged(tmp_path: Path):
    path = tmp_path / "a.npz"
    np.savez(path, words=np.arange(3))
    for contents in (b"not an archive", b"PK\x03\x04" + bytes(50), path.read_bytes()):
        path.write_bytes(contents)
        with raises("checkpoint.damaged", path=path):
            restore_checkpoint(path, variables())


# --- the newest readable state --------------------------------------------------------------------


def steps_left(run: Path) -> list[int]:
    return [read_progress(path).step for path in state_paths(run, 1)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose stage 1 has saved three states."""
    for step in (9, 10, 11):
        save_state(tmp_path, variables(step), replace(OWN, step=step))
    return tmp_path


def test_a_stage_keeps_its_two_newest_states(run: Path):
    assert steps_left(run) == [11, 10]
    # The end of an epoch comes behind its last step; other stages have their own.
    save_state(run, variables(0), replace(OWN, epoch=1))
    save_state(run, variables(0), replace(OWN, stage=2))
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == [
        "stage1-epoch0000-step000011.npz",
        "stage1-epoch0001-step000000.npz",
        "stage2-epoch0000-step000000.npz",
    ]


def test_a_damaged_newest_state_gives_way_to_the_older_one(
    run: Path, caplog: pytest.LogCaptureFixture
):
    newest, older = state_paths(run, 1)
    with caplog.at_level(logging.WARNING, "tf_dpce"):
        assert find_checkpoint(run, "last") == newest and not caplog.messages
        newest.write_bytes(newest.read_bytes()[:-200])
        assert find_checkpoint(run, "last") == older
    (line,) = caplog.messages
    assert str(newest) in line and older.name in line
    # Who only reads leaves both where they are: a run may be training there.
    assert newest.exists() and older.exists()


def test_if_no_state_is_readable_the_newest_is_named(run: Path):
    newest, older = state_paths(run, 1)
    # One of another model is not passed over.
    other = variables(0, width=4)
    with raises("checkpoint.model", path=newest):
        newest_readable([newest, older], lambda path: restore_checkpoint(path, other))
    for path in (newest, older):
        path.write_bytes(b"cut")
    with raises("checkpoint.damaged", path=newest):
        find_checkpoint(run, "last")


# --- which one a run is judged by -----------------------------------------------------------------


def keep_best(run: Path, stage: int, rsum: float) -> Path:
    path = best_path(run, stage)
    save_checkpoint(path, [], Progress(stage, 1, 0, rsum))
    return path


def test_the_best_is_that_of_the_higher_rsum(tmp_path: Path):
    for first, second, stage in ((310.5, 290.0, 1), (290, 310, 2), (9, 9, 2)):
        run = tmp_path / f"{first}"
        best = {1: keep_best(run, 1, first)}
        assert find_checkpoint(run, "best") == best[1]
        best[2] = keep_best(run, 2, second)
        assert find_checkpoint(run, "best") == best[stage]


def test_the_last_is_that_of_the_latest_stage(run: Path):
    save_state(run, variables(0), replace(OWN, stage=2))
    assert find_checkpoint(run, "last") == state_paths(run, 2)[0]


def test_a_missing_one_or_a_damaged_best_of_two_is_refused(tmp_path: Path):
    for kind in ("best", "last"):
        with raises("checkpoint.missing"):
            find_checkpoint(tmp_path, kind)
    keep_best(tmp_path, 1, 9)
    damaged = keep_best(tmp_path, 2, 9)
    damaged.write_bytes(b"cut")
    with raises("checkpoint.damaged", path=damaged):
        find_checkpoint(tmp_path, "best")


def test_vectors_and_their_digest_are_of_the_same_checkpoint(tmp_path: Path):
    keep_best(tmp_path, 1, 310.5)
    words = tmp_path / "vocabulary.txt"
    words.write_text("dog\n")
    data = {"vocabulary_sha256": sha256_file(words), "num_instances": 1, "lowercase": True}
    write_json(tmp_path / "config.json", {"config": to_dict(Config()), "data": data})
    before = model_digest(tmp_path)
    keep_best(tmp_path, 2, 290.0)
    assert model_digest(tmp_path) == before, "stage 1 is still the best"
    keep_best(tmp_path, 2, 320.0)
    assert model_digest(tmp_path) != before
