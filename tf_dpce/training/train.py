"""Trains a model from the first check to the last checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from tf_dpce import files
from tf_dpce.config import Config, to_dict
from tf_dpce.data.caption_lengths import count_lengths, warn_cut_captions
from tf_dpce.data.checksums import explain_damage
from tf_dpce.data.manifest import VOCABULARY_FILE, Manifest
from tf_dpce.data.pieces import learn_pieces, training_captions
from tf_dpce.data.teacher import load_teacher
from tf_dpce.errors import UserError, explain_system_error
from tf_dpce.logging import logger
from tf_dpce.models.dual_path import DualPath
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.preprocessing.vocabulary import read_vocabulary, write_vocabulary
from tf_dpce.training import checks
from tf_dpce.training.best_epoch import log_few_images
from tf_dpce.training.checkpoint import CHECKPOINTS_FOLDER
from tf_dpce.training.cluster import join_workers
from tf_dpce.training.diagnostics import warn_unknown_words
from tf_dpce.training.distributed import Workers, describe
from tf_dpce.training.model_factory import starting_model, with_absolute_paths
from tf_dpce.training.resume import (
    check_best_weights,
    latest_stage,
    restore_best,
    restore_state,
    start_from,
)
from tf_dpce.training.run_folder import (
    CONFIG_FILE,
    PIECES_DIGEST,
    PIECES_FILE,
    TEACHER_DIGEST,
    provenance,
    stored_pieces,
    write_sources,
)
from tf_dpce.training.stage import TrainingContext, train_stage


def train(
    config: Config,
    data: Path,
    run: Path,
    stages: Sequence[int] = (1, 2),
    init_from: Path | None = None,
    resume: bool = False,
    profile: int = 0,
) -> None:
    """Trains the stages of a configuration in order and writes the run folder.

    Under `TF_CONFIG` this process is one of several workers. Only the chief reads and writes run
    folders and reads the files of weights and word vectors; the other workers need not have them.
    The log says how far the training is; `run_context` can stop it.

    Args:
        config: configuration of the run.
        data: folder of prepared data.
        run: folder of the run.
        stages: numbers of the stages. Stage 2 alone needs `init_from`.
        init_from: folder of a run whose best weights to start from. It must have been trained on
            the same training images in the same order, because its classifier knows them by their
            numbers.
        resume: whether to resume the run from its newest state, if there is one.
        profile: number of steps of each stage to profile for TensorBoard.

    Raises:
        UserError: a mistake of the user, found before the first step unless a disk fills, a shard
            is damaged, or the training diverges.
        Stopped: a stop was requested; the state of the run is saved.
    """
    config = with_absolute_paths(config)
    with join_workers() as workers, explain_damage(data):
        trained = [number for number in stages if config.stage(number).epochs]
        with workers.fail_together():
            manifest = Manifest.load(data)
            replicas = workers.strategy.num_replicas_in_sync
            checks.check_stages(config, stages, manifest.splits["train"], replicas)
            checks.check_vocabulary(data, manifest)
            tokenizer = _tokenizer(config, data, manifest, [run, init_from])
            saved = {"config": to_dict(config), "data": provenance(manifest, config.teacher)}
            if tokenizer.kind == "wordpiece":
                saved["data"][PIECES_DIGEST] = files.sha256_lines(tokenizer.words)
            latest = latest_stage(run, trained) if workers.is_chief and resume else 0
            if workers.is_chief:
                asked = resume
                resume = checks.check_folder(run, saved, asked, has_state=latest > 0)
                if asked and not resume:
                    logger.info(f"{run} holds no run to resume: starting a new one")
                if not latest:
                    checks.check_origin(init_from, saved, needed=tuple(stages) == (2,))
        _check_same_on_all(workers, config, saved["data"], stages)
        resume, latest = workers.broadcast(np.array([resume, latest], np.int32)).tolist()

        logger.info(f"{describe(workers.strategy)}, {config.precision}, seed {config.seed}")
        # A state holds all weights: the files that they once came from are not needed any more.
        first = replace(config, weights="none", vectors=None) if latest else config
        model = _build(first, tokenizer.words, manifest, data, workers)
        teacher = None
        if config.teacher:
            with workers.main_process_first():  # each reads a copy of its own
                digest = saved["data"][TEACHER_DIGEST]
                teacher = load_teacher(Path(config.teacher), data, digest)
        context = TrainingContext(config, data, run, model, tokenizer, workers, teacher, profile)
        start_from(context, None if latest else init_from)
        with _run_folder(context, saved, resume=bool(resume), latest=latest):
            if latest:
                trained = _resume(context, trained, latest)
            if trained and workers.is_chief:
                log_few_images(manifest.splits["val"].images)
                lengths = manifest.caption_lengths  # in words
                if tokenizer.kind != "words":
                    lengths = count_lengths(training_captions(data), tokenizer)
                warn_cut_captions(lengths, tokenizer.max_length)
                warn_unknown_words(data, manifest, tokenizer)
            for number in trained:
                settings = config.stage(number)
                logger.info(
                    f"stage {number}: {settings.epochs} epochs, backbone {settings.backbone}"
                )
                with _explain_how_to_continue(run):
                    train_stage(context, number, resume=number == latest)
                restore_best(context, number)


# --- checks ---------------------------------------------------------------------------------------


def _check_same_on_all(
    workers: Workers, config: Config, data: dict[str, object], stages: Sequence[int]
) -> None:
    # Only the chief reads the first two; of a teacher the digest is compared, which is in `data`.
    shared = to_dict(replace(config, weights="none", vectors=None, teacher=None))
    digest = files.sha256_lines([json.dumps([shared, data, list(stages)])])
    own = np.frombuffer(digest.encode(), np.uint8).astype(np.int32)
    chiefs = workers.broadcast(own)
    with workers.fail_together():
        if not np.array_equal(own, chiefs):
            raise UserError(
                "workers.differ",
                "this worker was given other options or other prepared data than the chief: "
                "give all workers the same command, and copies of one --data",
            )


# --- the model and the run folder -----------------------------------------------------------------


def _tokenizer(
    config: Config, data: Path, manifest: Manifest, runs: Sequence[Path | None]
) -> CaptionTokenizer:
    text = config.text
    if text.tokenizer == "wordpiece" and (found := stored_pieces(runs)):
        words = found
    elif text.tokenizer == "wordpiece":
        # Turned copies exchange whole words.
        whole = [word for pair in text.opposites for word in pair]
        words = learn_pieces(data, manifest.lowercase, text.pieces, whole)
        logger.info(f"{len(words):,} pieces of words learnt from the training captions")
    else:
        words = read_vocabulary(data / VOCABULARY_FILE)
    return CaptionTokenizer.of_run(words, text, manifest.lowercase)


def _build(
    config: Config, words: Sequence[str], manifest: Manifest, data: Path, workers: Workers
) -> DualPath:
    if not workers.is_chief:
        # Its weights come from the chief.
        config = replace(config, weights="none", vectors=None)
    with workers.strategy.scope():
        return starting_model(config, words, manifest, data)


def _resume(context: TrainingContext, stages: Sequence[int], latest: int) -> list[int]:
    """Gives the model the weights to resume with; returns the stages that are left to train."""
    # Before the stage, which finds its cached features by the weights of the backbone. A finished
    # stage is not made at all, because it would compute its features for nothing.
    reached, _ = restore_state(context, latest, context.model.variables)
    check_best_weights(context, stages, reached)
    if reached.epoch < context.config.stage(latest).epochs:
        return [number for number in stages if number >= latest]
    logger.info(f"stage {latest} is finished")
    restore_best(context, latest)
    return [number for number in stages if number > latest]


@contextmanager
def _run_folder(
    context: TrainingContext, saved: dict[str, dict], resume: bool, latest: int
) -> Iterator[None]:
    """Makes the folder of a run and locks it within the block, on the chief."""
    run, data, workers = context.run, context.data, context.workers
    with ExitStack() as stack:
        with workers.fail_together(), _explain_how_to_continue(run):
            if workers.is_chief:
                run.mkdir(parents=True, exist_ok=True)
                stack.enter_context(files.exclusive_lock(run))
                for folder in (run, run / CHECKPOINTS_FOLDER):
                    files.remove_stale(folder)
                # Again, because until now another process could write there.
                checks.check_folder(run, saved, resume, has_state=latest > 0)
                _copy_vocabulary(data / VOCABULARY_FILE, run / VOCABULARY_FILE, saved, resume)
                if context.tokenizer.kind == "wordpiece":
                    write_vocabulary(run / PIECES_FILE, context.tokenizer.words)
                # It comes last: a folder without it is no run yet, see `check_folder`.
                if not resume:
                    files.write_json(run / CONFIG_FILE, saved)
                if not latest:
                    write_sources(run, Manifest.load(data), context.config)
        yield


def _copy_vocabulary(source: Path, target: Path, saved: dict[str, dict], resume: bool) -> None:
    if target.is_file() and files.sha256_file(target) == saved["data"]["vocabulary_sha256"]:
        return
    with files.publish_file(target) as temporary:
        shutil.copyfile(source, temporary)
    if resume:
        logger.warning(f"{target} was lost: copied again from {source}")


# --- log and errors -------------------------------------------------------------------------------


@contextmanager
def _explain_how_to_continue(run: Path) -> Iterator[None]:
    """Turns a full disk and other faults of the machine into a line that says how to continue."""
    try:
        yield
    except Exception as error:
        begun = (run / CONFIG_FILE).exists()
        known = explain_system_error(
            error, "resume with --resume" if begun else "give the command again"
        )
        if known is None:
            raise
        raise known from None
