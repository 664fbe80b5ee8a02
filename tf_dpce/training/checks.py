"""Checks before training: everything that can be refused before a model is built."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_dpce.config import Config, to_dict
from tf_dpce.config.backbones import check_weights
from tf_dpce.data.manifest import VOCABULARY_FILE, Manifest, SplitInfo
from tf_dpce.data.teacher_files import read_teacher
from tf_dpce.errors import UserError
from tf_dpce.files import check_writable, is_temporary, sha256_file
from tf_dpce.preprocessing.vector_tables import check_tables
from tf_dpce.training.checkpoint import CHECKPOINTS_FOLDER, find_checkpoint
from tf_dpce.training.run_folder import (
    CONFIG_FILE,
    PIECES_DIGEST,
    PIECES_FILE,
    TEACHER_DIGEST,
    TRAIN_DIGEST,
    provenance,
    read_config,
    run_config,
)

# Keys that a resumed run may change: always, and if a checkpoint holds its weights.
_FREE = {"checkpoint_minutes", "teacher"}  # of a teacher the digest counts
_FIRST_WEIGHTS = {"weights", "vectors"}


def check_training(
    config: Config,
    data: Path,
    run: Path,
    stages: Sequence[int],
    init_from: Path | None = None,
    resume: bool = False,
) -> None:
    """Finds, before TensorFlow is imported, the mistakes of a training by one process.

    `train` checks all of it again, and with it what needs TensorFlow or the folder's lock.

    Args:
        config: configuration of the run.
        data: folder of prepared data.
        run: folder of the run.
        stages: numbers of the stages.
        init_from: folder of a run to start from.
        resume: whether to resume the run.

    Raises:
        UserError: one of these mistakes.
    """
    manifest = Manifest.load(data)
    check_stages(config, stages, manifest.splits["train"], replicas=1)
    check_vocabulary(data, manifest)
    if config.teacher:
        next(read_teacher(Path(config.teacher)), None)
    saved = {"config": to_dict(config), "data": provenance(manifest, config.teacher)}
    # A state holds all weights, and where they once came from may be gone.
    if check_folder(run, saved, resume, has_state=True):
        return
    check_origin(init_from, saved, needed=tuple(stages) == (2,))
    if init_from:
        find_checkpoint(init_from, "best")
    check_tables([Path(path) for path in config.vectors or ()])
    check_weights(config.image.backbone, config.weights)


def check_stages(config: Config, numbers: Sequence[int], train: SplitInfo, replicas: int) -> None:
    """Refuses stages without an epoch, and what the training split is too small for.

    Args:
        config: configuration of the run.
        numbers: numbers of the stages that are asked for.
        train: numbers of images and instances of the training split.
        replicas: number of replicas that a batch is divided among.

    Raises:
        UserError: one of these.
    """
    trained = [number for number in numbers if config.stage(number).epochs]
    if not trained:
        options = " and ".join(f"--stage{number}.epochs 0" for number in numbers)
        raise UserError(
            "training.epochs",
            f"nothing to train with {options}: give --preset, or --stage{numbers[0]}.epochs",
        )
    for number in trained:
        _check_batch(config, number, train.images, replicas)
    negatives = config.model.sampled_negatives
    if negatives >= train.instances:
        raise UserError(
            "training.sampled_negatives",
            f"--model.sampled_negatives {negatives} is not smaller than the {train.instances} "
            "training instances: lower it, or give 0 for the exact classifier",
        )


def check_vocabulary(data: Path, manifest: Manifest) -> None:
    """Refuses a vocabulary that `prepare` did not write beside these shards.

    Args:
        data: folder of prepared data.
        manifest: manifest of that folder.

    Raises:
        UserError: the vocabulary is missing, or another.
    """
    path = data / VOCABULARY_FILE
    if not path.is_file() or sha256_file(path) != manifest.vocabulary_sha256:
        raise UserError(
            "training.vocabulary",
            f"{path} is missing or is not the vocabulary that was prepared with the shards beside "
            "it: put that file back, or run prepare again",
            path,
        )


def check_folder(
    run: Path, saved: Mapping[str, Mapping[str, Any]], resume: bool, has_state: bool = False
) -> bool:
    """Refuses a folder that a new run cannot have, or that holds another run than the resumed one.

    Temporary files do not count: another process is writing them, or was killed while it did.

    Args:
        run: folder of the run.
        saved: contents that `config.json` must have.
        resume: whether to resume the run.
        has_state: whether the run has a state to resume from, which holds all weights.

    Returns:
        Whether there is a run to resume. There is none in a missing or an empty folder.

    Raises:
        UserError: one of these, or the folder cannot be written to.
    """
    for folder in (run, run / CHECKPOINTS_FOLDER):
        check_writable(folder)
    early = (VOCABULARY_FILE, PIECES_FILE)  # written before `config.json`: a start may be killed
    names = {item.name for item in run.iterdir()} if run.exists() else ()
    begun = any(name not in early and not is_temporary(name) for name in names)
    if begun and not resume:
        raise UserError(
            "run.not_empty",
            f"{run} is not empty: resume with --resume, or choose another --run",
            run,
        )
    if begun:
        _check_same(run, saved, has_state)
    return begun


def check_origin(
    folder: Path | None, saved: Mapping[str, Mapping[str, Any]], needed: bool = False
) -> None:
    """Refuses to start from a run of other data or tokens, or from no run if one is needed.

    Word vectors and classifier know tokens and images by their numbers.

    Args:
        folder: folder of the run to start from, if there is one.
        saved: contents that the new run's `config.json` must have.
        needed: whether there must be a run to start from.

    Raises:
        UserError: the folder is no run, or tokens or images have other numbers there.
    """
    if folder is None:
        if needed:
            raise UserError(
                "run.init_from", "stage 2 alone needs --init-from RUN, the run of stage 1"
            )
        return
    _check_tokens(folder, saved)
    before, data = read_config(folder)["data"], saved["data"]
    for key, what in (
        ("vocabulary_sha256", "another vocabulary"),
        (TRAIN_DIGEST, "other training images, or in another order,"),
        (PIECES_DIGEST, "other pieces of words"),
    ):
        if key in data and before.get(key) != data[key]:
            raise UserError(
                "run.other_data",
                f"{folder} was trained with {what} than this data: give the --data of that run",
                folder,
            )


def _check_tokens(folder: Path, saved: Mapping[str, Mapping[str, Any]]) -> None:
    before, own = to_dict(run_config(folder))["text"], saved["config"]["text"]
    keys = ["tokenizer", *(["pieces", "opposites"] if own["tokenizer"] == "wordpiece" else [])]
    differing = [key for key in keys if before[key] != own[key]]
    if differing:
        options = " ".join(f"--text.{key} {json.dumps(before[key])}" for key in differing)
        message = f"{folder} was trained with {options}: give the same, or another --init-from"
        raise UserError("run.other_tokenizer", message, folder)


def _check_batch(config: Config, number: int, images: int, replicas: int) -> None:
    stage, option = config.stage(number), f"--stage{number}.batch_size"
    reason = ""
    if min(stage.batch_size, images) < 2:
        # BatchNorm makes the same of any single row.
        reason = (
            f"and a training split of {images:,} images: a model learns from two images or more in "
            "a batch; raise it, or prepare more images"
        )
    elif stage.batch_size > images:
        reason = f"is larger than the training split, {images} images: lower it"
    elif stage.loss.pairs_negatives and stage.batch_size % (2 * replicas):
        reason = (
            f"leaves an anchor without its negative: give a multiple of {2 * replicas}, or "
            f"--stage{number}.loss.negatives batch"
        )
    elif config.text.opposites and stage.batch_size % (2 * replicas):
        reason = (
            f"leaves a row without its turned copy: give a multiple of {2 * replicas}, or no "
            "text.opposites"
        )
    elif stage.batch_size % replicas:
        reason = f"cannot be divided among {replicas} replicas: give a multiple of {replicas}"
    elif stage.loss.mines_negatives and stage.batch_size == images:
        reason = (
            "takes every training image, which leaves none to mine negatives from: lower it, or "
            f"give --stage{number}.loss.negatives batch"
        )
    if reason:
        raise UserError("training.batch_size", f"{option} {stage.batch_size} {reason}")


def _check_same(run: Path, saved: Mapping[str, Mapping[str, Any]], has_state: bool) -> None:
    """A run can only be resumed with what it began with, except for what changes no weight."""
    free = _FREE | (_FIRST_WEIGHTS if has_state else set())
    before = {"config": to_dict(run_config(run)), "data": read_config(run)["data"]}
    for part, remedy in (("config", "options"), ("data", "prepared data")):
        # Compared as text, because the order of `lr_multipliers` counts.
        differing = sorted(
            key
            for key, value in saved[part].items()
            if key not in free | {TEACHER_DIGEST}
            and json.dumps(before[part].get(key)) != json.dumps(value)
        )
        if differing:
            raise UserError(
                "run.differs",
                f"{run / CONFIG_FILE} differs in {', '.join(differing)}: resume with the same "
                f"{remedy}, or choose another --run",
                run / CONFIG_FILE,
            )
    if before["data"].get(TEACHER_DIGEST) != saved["data"].get(TEACHER_DIGEST):
        began = before["config"]["teacher"] or "no teacher"
        message = (
            f"{run} began with {began} as it then was: resume with it, or choose another --run"
        )
        raise UserError("teacher.other", message, run / CONFIG_FILE)
    from tf_dpce.training.callbacks import HISTORY_FILE, read_history

    # It is needed at the end of an epoch: refuse a damaged one now.
    read_history(run / HISTORY_FILE, before=(1, 1))
