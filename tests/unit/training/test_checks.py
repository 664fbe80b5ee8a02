"""What is refused before anything is built or written."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.errors import raises
from tf_dpce.config import Config, StageConfig, from_dict, to_dict
from tf_dpce.errors import UserError
from tf_dpce.files import write_json
from tf_dpce.training.checks import (
    check_folder,
    check_origin,
    check_sampling,
    check_stages,
)

GIVEN = {"pair": 1.0, "pair_loss": "ranking", "negatives": "given"}
DATA = {"vocabulary_sha256": "words", "train_digest": "shards", "source": "table"}
SAVED = {"config": {"seed": 0}, "data": DATA}


def stages(**values: dict) -> Config:
    trained = {"epochs": 1, "batch_size": 8}
    return from_dict({k: v if k == "model" else trained | v for k, v in values.items()})


def run_of(folder: Path, **changes: object) -> Path:
    data = {k: v for k, v in (DATA | changes).items() if v is not None}
    write_json(folder / "config.json", SAVED | {"data": data})
    return folder


# --- stages and batches ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "numbers", "told"),
    [
        (Config(), (1, 2), "nothing to train with --stage1.epochs 0 and --stage2.epochs 0"),
        (stages(stage1={}), (2,), "stage2.epochs 0: give --preset, or --stage2.epochs"),
    ],
)
def test_no_epochs_are_nothing_to_train(config: Config, numbers: tuple[int, ...], told: str):
    with pytest.raises(UserError, match=told):
        check_stages(config, numbers, images=100, replicas=1)


@pytest.mark.parametrize("number", [1, 2])
def test_a_batch_is_no_larger_than_the_data(number: int):
    config = stages(**({"stage1": {}, "stage2": {}} | {f"stage{number}": {"batch_size": 49}}))
    check_stages(config, (1, 2), images=49, replicas=1)
    told = rf"48 training images, fewer than one batch of 49: lower --stage{number}.batch_size"
    with pytest.raises(UserError, match=told):
        check_stages(config, (1, 2), images=48, replicas=1)
    # What is not trained needs no batch.
    check_stages(config, (3 - number,), images=48, replicas=1)


@pytest.mark.parametrize(("size", "replicas", "multiple"), [(9, 1, 2), (6, 2, 4), (10, 4, 8)])
def test_an_anchor_and_its_negative_meet_on_one_replica(size: int, replicas: int, multiple: int):
    told = f"--stage2.batch_size {size} leaves an anchor .* give a multiple of {multiple}, or"
    with pytest.raises(UserError, match=told):
        config = stages(stage1={}, stage2={"batch_size": size, "loss": GIVEN})
        check_stages(config, (1, 2), 100, replicas)
    config = stages(stage2={"batch_size": multiple, "loss": GIVEN})
    check_stages(config, (2,), 100, replicas)


def test_every_replica_takes_a_slice_of_one_size():
    config = stages(stage1={"batch_size": 10})
    check_stages(config, (1,), 100, replicas=5)
    told = "--stage1.batch_size 10 cannot be cut into 4 slices .*: give a multiple of 4"
    with pytest.raises(UserError, match=told):
        check_stages(config, (1,), 100, replicas=4)


@pytest.mark.parametrize(
    "change", [{"negatives": "batch"}, {"pair_loss": "contrastive"}, {"pair": 0}]
)
def test_other_losses_take_an_odd_batch(change: dict):
    check_stages(stages(stage2={"batch_size": 9, "loss": GIVEN | change}), (2,), 100, 1)


@pytest.mark.parametrize("negatives", [100, 8192])
def test_negatives_are_fewer_than_the_instances(negatives: int):
    config = stages(model={"sampled_negatives": negatives}, stage1={})
    check_sampling(config, instances=negatives + 1)
    with raises("training.sampled_negatives"):
        check_sampling(config, instances=negatives)
    # The exact classifier asks for nothing.
    check_sampling(stages(stage1={}), instances=1)


# --- the folder of the run ------------------------------------------------------------------------


def test_a_start_that_was_killed_leaves_a_folder_that_is_as_good_as_new(tmp_path: Path):
    # The second is of an earlier version, by a process whose number this one may have as well.
    aside = {".config.json.0f12a9b3c4d5.tmp", f".config.json.{os.getpid()}.tmp"}
    for name in {"vocabulary.txt"} | aside:
        (tmp_path / name).write_text("dog\n")
    for resume in (False, True):
        assert check_folder(tmp_path, SAVED, resume) is False
    # Whoever trains there may be writing them: only under its lock may anything be removed.
    assert {item.name for item in tmp_path.iterdir()} == {"vocabulary.txt"} | aside


def test_such_a_folder_may_also_be_resumed(tmp_path: Path):
    (tmp_path / "vocabulary.txt").write_text("dog\n")
    assert check_folder(tmp_path, SAVED, resume=True) is False, "there is nothing to go on with"
    assert check_folder(run_of(tmp_path), SAVED, resume=True) is True
    with pytest.raises(UserError, match="missing is not a run"):
        check_folder(tmp_path / "missing", SAVED, resume=True)


def test_a_folder_with_anything_else_is_refused(tmp_path: Path):
    check_folder(tmp_path / "missing", SAVED, resume=False)
    with pytest.raises(UserError, match="is not empty: go on with --resume"):
        check_folder(run_of(tmp_path), SAVED, resume=False)


def test_a_run_goes_on_with_what_it_began_with(tmp_path: Path):
    check_folder(run_of(tmp_path), SAVED, resume=True)
    with pytest.raises(UserError, match="differs in seed: resume with the same options"):
        check_folder(tmp_path, SAVED | {"config": {"seed": 1}}, resume=True)


def test_a_run_may_go_on_with_what_changes_none_of_its_weights(tmp_path: Path):
    run_of(tmp_path)
    often = SAVED | {"config": to_dict(replace(Config(), checkpoint_minutes=1.0))}
    assert check_folder(tmp_path, often, resume=True)
    moved = to_dict(replace(Config(), weights="/moved.h5", vectors="/moved.npz"))
    # Without a checkpoint they are what it begins with.
    with pytest.raises(UserError, match="differs in vectors, weights: resume with the same opt"):
        check_folder(tmp_path, SAVED | {"config": moved}, resume=True)
    assert check_folder(tmp_path, SAVED | {"config": moved}, resume=True, held=True)
    with pytest.raises(UserError, match="differs in seed:"):
        check_folder(tmp_path, SAVED | {"config": moved | {"seed": 1}}, resume=True, held=True)


def test_keys_that_an_earlier_version_lacked_have_their_defaults(tmp_path: Path):
    now = SAVED | {"config": to_dict(Config())}
    assert check_folder(run_of(tmp_path), now, resume=True)
    changed = to_dict(replace(Config(), stage1=StageConfig(average=0.5)))
    with pytest.raises(UserError, match="differs in stage1: resume with the same options"):
        check_folder(tmp_path, SAVED | {"config": changed}, resume=True)


def test_the_same_images_in_another_order_are_other_data(tmp_path: Path):
    run_of(tmp_path, train_digest="shards of another seed")
    with pytest.raises(UserError, match="differs in train_digest: .* same prepared data"):
        check_folder(tmp_path, SAVED, resume=True)
    with pytest.raises(UserError, match="trained with other training images, or in another or"):
        check_origin(tmp_path, DATA)


def test_a_run_starts_from_one_of_the_same_data(tmp_path: Path):
    # Where images came from does not matter, only which they are.
    check_origin(run_of(tmp_path, source="karpathy"), DATA)
    with pytest.raises(UserError, match="trained with another vocabulary than the data's"):
        check_origin(run_of(tmp_path, vocabulary_sha256="others"), DATA)


def test_a_run_of_an_earlier_version_is_told(tmp_path: Path):
    run_of(tmp_path, train_digest=None)
    with pytest.raises(UserError, match="has no train_digest: an earlier version trained this"):
        check_folder(tmp_path, SAVED, resume=True)
    with pytest.raises(UserError, match="has no train_digest"):
        check_origin(tmp_path, DATA)
