"""What can be said against a training before anything is built or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_dpce.config import Config, to_dict
from tf_dpce.data.manifest import VOCABULARY_FILE, Manifest
from tf_dpce.errors import UserError
from tf_dpce.files import is_aside, sha256_file
from tf_dpce.training.history import HISTORY_FILE, read_history
from tf_dpce.training.run_folder import CONFIG_FILE, TRAIN_DIGEST, read_config, run_config
from tf_dpce.training.writing import check_writable

# Keys that a run may go on with others of: always, and where a checkpoint holds its weights.
_FREE = {"checkpoint_minutes"}
_FIRST_WEIGHTS = {"weights", "vectors"}


def check_stages(config: Config, numbers: Sequence[int], images: int, replicas: int) -> None:
    """Refuses stages without an epoch, and batches that the data or the losses cannot fill.

    Args:
        config: of the run.
        numbers: of the stages that are asked for.
        images: of the training split.
        replicas: over which a batch is sliced.

    Raises:
        UserError: one of these.
    """
    trained = [number for number in numbers if config.stage(number).epochs]
    if not trained:
        options = " and ".join(f"--stage{number}.epochs 0" for number in numbers)
        raise UserError(
            f"nothing to train with {options}: give --preset, or --stage{numbers[0]}.epochs"
        )
    for number in trained:
        _check_batch(config, number, images, replicas)


def check_sampling(config: Config, instances: int) -> None:
    """Refuses to sample as many classes as there are, or more.

    Args:
        config: configuration of the run.
        instances: C, the number of classes.

    Raises:
        UserError: `model.sampled_negatives` is not smaller than C.
    """
    negatives = config.model.sampled_negatives
    if negatives >= instances:
        raise UserError(
            "training.sampled_negatives",
            f"--model.sampled_negatives {negatives} is not smaller than the {instances} training "
            "instances: lower it, or give 0 for the exact classifier",
        )


def check_vocabulary(data: Path, manifest: Manifest) -> None:
    """Refuses a vocabulary that `prepare` did not write beside these shards.

    Args:
        data: folder of prepared data.
        manifest: of that folder.

    Raises:
        UserError: it is missing, or another.
    """
    path = data / VOCABULARY_FILE
    if not path.is_file() or sha256_file(path) != manifest.vocabulary_sha256:
        raise UserError(
            f"{path} is not the vocabulary that was prepared with the shards beside it: put that "
            "file back, or run prepare again"
        )


def check_folder(
    run: Path, saved: Mapping[str, Mapping[str, Any]], resume: bool, held: bool = False
) -> bool:
    """Refuses a folder that a new run cannot have, or that is not of the run to go on with.

    What is being written there, or was when a process was killed, does not count.

    Args:
        run: the folder.
        saved: what `config.json` shall hold.
        resume: whether to go on.
        held: whether it goes on from a checkpoint, which holds all weights.

    Returns:
        Whether there is something to go on with: not where a start was killed at once.

    Raises:
        UserError: one of these, or a folder that cannot be written to.
    """
    check_writable(run)
    # A start that was killed leaves the vocabulary, which stands before `config.json`. What is not
    # there at all cannot be gone on with.
    names = {item.name for item in run.iterdir()} if run.exists() else {CONFIG_FILE}
    begun = any(name != VOCABULARY_FILE and not is_aside(name) for name in names)
    if resume and begun:
        _check_same(run, saved, held)
    elif run.exists() and begun:
        raise UserError(f"{run} is not empty: go on with --resume, or choose another --run")
    return resume and begun


def check_origin(folder: Path | None, data: Mapping[str, Any], needed: bool = False) -> None:
    """Refuses to start from a run of other data, or from none where one is needed.

    Its word vectors and its classifier know words and images by their numbers.

    Args:
        folder: of the run to start from, if there is one.
        data: what the new run keeps of its own data.
        needed: whether there must be one.

    Raises:
        UserError: it is no run, or words or images have other numbers there.
    """
    if folder is None:
        if needed:
            raise UserError(
                "the stage has no checkpoint to go on from yet: give --init-from RUN, the run of "
                "stage 1"
            )
        return
    before = _read_known(folder)["data"]
    for key, what in (
        ("vocabulary_sha256", "another vocabulary"),
        (TRAIN_DIGEST, "other training images, or in another order,"),
    ):
        if before.get(key) != data[key]:
            raise UserError(
                f"{folder} was trained with {what} than the data's: give the --data of that run"
            )


def _check_batch(config: Config, number: int, images: int, replicas: int) -> None:
    stage, option = config.stage(number), f"--stage{number}.batch_size"
    if stage.batch_size > images:
        raise UserError(
            f"there are {images} training images, fewer than one batch of "
            f"{stage.batch_size}: lower {option}"
        )
    if stage.loss.lends_negatives and stage.batch_size % (2 * replicas):
        raise UserError(
            f"{option} {stage.batch_size} leaves an anchor without its negative: give a multiple "
            f"of {2 * replicas}, or --stage{number}.loss.negatives batch"
        )
    if stage.batch_size % replicas:
        raise UserError(
            f"{option} {stage.batch_size} cannot be cut into {replicas} slices of one size, one "
            f"for each replica: give a multiple of {replicas}"
        )
    if stage.loss.mines_negatives and stage.batch_size == images:
        raise UserError(
            f"{option} {stage.batch_size} takes every training image, which leaves none to mine "
            f"negatives from: lower it, or give --stage{number}.loss.negatives batch"
        )


def _check_same(run: Path, saved: Mapping[str, Mapping[str, Any]], held: bool) -> None:
    """A run can only go on with what it began with, but for what changes nothing in its weights."""
    free = _FREE | (_FIRST_WEIGHTS if held else set())
    # A run of an earlier version lacks keys that it had no use for: their defaults change nothing.
    before = {**_read_known(run), "config": to_dict(run_config(run))}
    for part, remedy in (("config", "options"), ("data", "prepared data")):
        differing = sorted(
            k for k, v in saved[part].items() if before[part].get(k) != v and k not in free
        )
        if differing:
            raise UserError(
                f"{run / CONFIG_FILE} differs in {', '.join(differing)}: resume with the same "
                f"{remedy}, or choose another --run"
            )
    # It is needed at the end of an epoch: better told now.
    read_history(run / HISTORY_FILE, before=(1, 1))


def _read_known(run: Path) -> Mapping[str, Mapping[str, Any]]:
    """Returns what a run's `config.json` holds, whose data can be told from other data."""
    saved = read_config(run)
    if TRAIN_DIGEST not in saved["data"]:
        raise UserError(
            f"{run / CONFIG_FILE} has no {TRAIN_DIGEST}: an earlier version trained this run, "
            "which can be used but not trained further; train it anew"
        )
    return saved
