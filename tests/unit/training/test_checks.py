"""What is refused before anything is built or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.errors import raises
from tests.mounts import read_only
from tf_dpce.config import Config, from_dict, to_dict
from tf_dpce.data.manifest import SplitInfo
from tf_dpce.files import write_json
from tf_dpce.training.checks import check_folder, check_origin, check_stages

PAIRED = {"pair": 1.0, "pair_loss": "ranking", "negatives": "paired"}
MINED = PAIRED | {"negatives": "mined", "candidates": 4}
DATA = {"vocabulary_sha256": "words", "train_digest": "shards", "source": "table"}
SAVED = {"config": to_dict(Config()), "data": DATA}


def stages(**values: dict) -> Config:
    trained = {"epochs": 1, "batch_size": 8}
    return from_dict({k: v if k == "model" else trained | v for k, v in values.items()})


def saved_with(**changes: object) -> dict[str, dict]:
    return SAVED | {"config": to_dict(replace(Config(), **changes))}


def run_of(folder: Path, **changes: object) -> Path:
    write_json(folder / "config.json", SAVED | {"data": DATA | changes})
    return folder


# --- stages and batches ---------------------------------------------------------------------------


def check(config: Config, numbers: Sequence[int], images: int, replicas: int = 1) -> None:
    check_stages(config, numbers, SplitInfo(images, 5 * images, images, ()), replicas)


def test_without_epochs_there_is_nothing_to_train():
    for config, numbers in ((Config(), (1, 2)), (stages(stage1={}), (2,))):
        with raises("training.epochs") as caught:
            check(config, numbers, images=100)
        assert f"--stage{numbers[0]}.epochs" in str(caught.value)


def test_batches_that_cannot_be_filled_or_divided_are_refused():
    in_batch = PAIRED | {"negatives": "batch"}
    for stage, images, replicas, fine in (
        ({"batch_size": 49}, 48, 1, {"batch_size": 48}),
        # BatchNorm makes the same of any single row.
        ({"batch_size": 1}, 48, 1, {"batch_size": 2}),
        # An anchor and its negative meet on one replica.
        ({"batch_size": 9, "loss": PAIRED}, 100, 1, {"batch_size": 2, "loss": PAIRED}),
        ({"batch_size": 6, "loss": PAIRED}, 100, 2, {"batch_size": 4, "loss": PAIRED}),
        ({"batch_size": 10, "loss": PAIRED}, 100, 4, {"batch_size": 8, "loss": PAIRED}),
        # Other losses take an odd batch, but every replica an equal part of it.
        ({"batch_size": 10}, 100, 4, {"batch_size": 12}),
        ({"batch_size": 9, "loss": PAIRED}, 100, 1, {"batch_size": 9, "loss": {"pair": 0}}),
        ({"batch_size": 9, "loss": PAIRED}, 100, 1, {"batch_size": 9, "loss": in_batch}),
        # Some image must be left to mine negatives from.
        ({"batch_size": 48, "loss": MINED}, 48, 1, {"batch_size": 46, "loss": MINED}),
    ):
        for number in (1, 2):
            key = f"stage{number}"
            with raises("training.batch_size") as caught:
                check(stages(**{key: stage}), (1, 2), images, replicas)
            assert f"--{key}." in str(caught.value)
            check(stages(**{key: fine}), (1, 2), images, replicas)
    # A stage that is not trained needs no batch.
    check(stages(stage1={"batch_size": 49}, stage2={}), (2,), images=48)


def test_a_row_and_its_turned_copy_are_on_one_replica():
    loss = {"image_instance": 0, "text_instance": 0, "pair": 1, "pair_loss": "contrastive"}
    for size, replicas in ((9, 1), (6, 2)):
        stage = {"epochs": 1, "batch_size": size, "loss": loss}
        config = from_dict({"text": {"opposites": [["left", "right"]]}, "stage1": stage})
        with raises("training.batch_size"):
            check(config, (1,), 100, replicas)
        check(replace(config, stage1=replace(config.stage1, batch_size=8)), (1,), 100, replicas)


def test_negatives_are_fewer_than_the_instances():
    for negatives in (100, 8192):
        config = stages(model={"sampled_negatives": negatives}, stage1={})
        check(config, (1,), images=negatives + 1)
        with raises("training.sampled_negatives"):
            check(config, (1,), images=negatives)


# --- the folder of the run ------------------------------------------------------------------------


def test_a_folder_without_a_run_is_as_good_as_new(tmp_path: Path):
    # A start that was killed leaves these.
    names = {"vocabulary.txt", ".config.json.0f12a9b3c4d5.tmp"}
    for name in names:
        (tmp_path / name).write_text("dog\n")
    for folder in (tmp_path, tmp_path / "missing"):
        for resume in (False, True):
            assert check_folder(folder, SAVED, resume) is False
    # Whoever trains there may be writing them: only under its lock may anything be removed.
    assert {item.name for item in tmp_path.iterdir()} == names


def test_a_folder_with_a_run_or_anything_else_is_refused_unless_it_is_resumed(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with raises("run.not_empty", path=tmp_path):
        check_folder(tmp_path, SAVED, resume=False)
    with raises("run.config", path=tmp_path / "config.json"):
        check_folder(tmp_path, SAVED, resume=True)
    assert check_folder(run_of(tmp_path), SAVED, resume=True) is True


def test_a_run_is_resumed_with_what_it_began_with(tmp_path: Path):
    run_of(tmp_path)
    path = tmp_path / "config.json"
    # How often it writes changes nothing; first weights are those of its state, if it has one.
    assert check_folder(tmp_path, saved_with(checkpoint_minutes=1.0), resume=True)
    moved = saved_with(weights="/moved.h5", vectors="/moved.npz")
    assert check_folder(tmp_path, moved, resume=True, has_state=True)
    for saved, has_state, keys in (
        (saved_with(seed=1), True, ("seed",)),
        (moved, False, ("weights", "vectors")),
        (SAVED | {"data": DATA | {"train_digest": "of another seed"}}, True, ("train_digest",)),
    ):
        with raises("run.differs", path=path) as caught:
            check_folder(tmp_path, saved, resume=True, has_state=has_state)
        assert all(key in str(caught.value) for key in keys)


def test_a_run_is_not_resumed_with_its_multipliers_in_another_order(tmp_path: Path):
    # The last match wins: a bias has half the rate in the first order, twice the rate in the other.
    rates = {"*/bias": 2.0, "image_head/*": 0.5}
    first, other = (
        SAVED | {"config": to_dict(stages(stage1={"lr_multipliers": dict(order)}))}
        for order in (rates.items(), reversed(rates.items()))
    )
    write_json(tmp_path / "config.json", first)
    assert check_folder(tmp_path, first, resume=True)
    with raises("run.differs"):
        check_folder(tmp_path, other, resume=True)


def test_a_damaged_history_is_refused_before_the_first_step(tmp_path: Path):
    (run_of(tmp_path) / "history.csv").write_text("hello\n1,2\n")
    with raises("run.history", path=tmp_path / "history.csv"):
        check_folder(tmp_path, SAVED, resume=True)


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path):
    run = run_of(tmp_path / "run")
    (run / "checkpoints").mkdir()
    for inner in (run, run / "checkpoints"):
        with read_only(inner):
            with raises("file.not_writable", path=inner):
                check_folder(run, SAVED, resume=True)
    # One that cannot be made, too.
    with raises("file.not_writable", path=run / "config.json"):
        check_folder(run / "config.json" / "run", SAVED, resume=False)
    with read_only(tmp_path):
        with raises("file.not_writable", path=tmp_path):
            check_folder(tmp_path / "new" / "run", SAVED, resume=False)


# --- the run to start from ------------------------------------------------------------------------


def test_a_run_starts_from_one_of_the_same_data(tmp_path: Path):
    # It does not matter where images came from, only which they are.
    check_origin(run_of(tmp_path, source="karpathy"), SAVED)
    for key in ("vocabulary_sha256", "train_digest"):
        with raises("run.other_data", path=tmp_path):
            check_origin(run_of(tmp_path, **{key: "another"}), SAVED)
    with raises("run.config", path=tmp_path / "missing" / "config.json"):
        check_origin(tmp_path / "missing", SAVED)


def test_a_run_starts_from_one_of_the_same_tokens(tmp_path: Path):
    def saved(**text: object) -> dict[str, dict]:
        kind = saved_with(text=replace(Config().text, **{"tokenizer": "wordpiece", **text}))
        return kind | {"data": DATA | {"pieces_sha256": "pieces"}}

    write_json(tmp_path / "config.json", saved())
    check_origin(tmp_path, saved(max_length=5))
    for text in ({"tokenizer": "words"}, {"pieces": 5}, {"opposites": (("left", "right"),)}):
        with raises("run.other_tokenizer", path=tmp_path):
            check_origin(tmp_path, saved(**text))
    write_json(tmp_path / "config.json", saved() | {"data": DATA | {"pieces_sha256": "others"}})
    with raises("run.other_data", path=tmp_path):
        check_origin(tmp_path, saved())
    # Of whole words only the vocabulary counts.
    check_origin(run_of(tmp_path), saved_with(text=replace(Config().text, pieces=5)))
    with raises("run.other_tokenizer", path=tmp_path):
        check_origin(tmp_path, saved())
