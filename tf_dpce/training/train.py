"""Training from the first check to the last checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_dpce.config import Config, to_dict
from tf_dpce.data.caption_lengths import warn_cut_captions
from tf_dpce.data.checksums import explain_damage
from tf_dpce.data.manifest import VOCABULARY_FILE, Manifest
from tf_dpce.errors import Stopped, UserError, explain_system_error
from tf_dpce.files import (
    exclusive_lock,
    publish_file,
    remove_stale,
    sha256_file,
    sha256_lines,
    write_json,
)
from tf_dpce.logging import logger
from tf_dpce.models.dual_path import DualPath
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.preprocessing.vocabulary import read_vocabulary
from tf_dpce.training.caption_table import tell_unknown_words
from tf_dpce.training.checkpoint import CHECKPOINTS_FOLDER
from tf_dpce.training.checks import (
    check_folder,
    check_origin,
    check_sampling,
    check_stages,
    check_vocabulary,
)
from tf_dpce.training.cluster import join_workers
from tf_dpce.training.distributed import Workers, describe, mirrored_strategy
from tf_dpce.training.features import Bar, Report, silent_bar
from tf_dpce.training.model_factory import starting_model, with_absolute_paths
from tf_dpce.training.restore import latest_stage, restore_best, resume_weights, start_from
from tf_dpce.training.run_folder import CONFIG_FILE, provenance
from tf_dpce.training.stage import Stage

Say = Callable[[str], None]

# Steps of a measurement: those that trace the graph and fill the input's buffers, then the others.
_WARM, _TIMED = 5, 20


def train(
    config: Config,
    data: Path,
    run: Path,
    stages: Sequence[int] = (1, 2),
    init_from: Path | None = None,
    resume: bool = False,
    say: Say = logger.info,
    progress: Bar = silent_bar,
    verbose: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Trains the stages of a configuration in order and leaves all in the run folder.

    Under `TF_CONFIG` this process is one of several workers. The chief alone reads and writes the
    folders of runs, and the files of weights and vectors; the others may not even have them.

    Args:
        config: of the run.
        data: folder of prepared data.
        run: folder to make, or to go on with where `resume`.
        stages: numbers of the stages.
        init_from: folder of a run whose best weights to start from. It must have been trained
            on the same training images in the same order, because its classifier knows them
            by their numbers.
        resume: whether to go on from the last checkpoint.
        say: called with a line now and then: devices, word vectors, stages.
        progress: makes the bar of images while features are cached.
        verbose: Keras's.
        stop: asked after each step, and between batches of images and captions elsewhere,
            whether to stop there.

    Raises:
        UserError: whatever the user can mend: before the first step, but for a disk that fills and
            a shard that is damaged.
        Stopped: `stop` said so; the run's last checkpoint is where it stands.
    """
    config = with_absolute_paths(config)
    with join_workers() as workers, explain_damage(data):
        if not workers.is_chief:
            say, verbose = _silent, 0
        with workers.fail_together():
            manifest = _checked_data(config, data, stages, workers.strategy)
            saved = {"config": to_dict(config), "data": provenance(manifest)}
            trained = [number for number in stages if config.stage(number).epochs]
            # The stage that the run stands in: what came before it need not be there any more.
            held = latest_stage(run, trained) if workers.is_chief and resume else 0
            if workers.is_chief:
                asked, resume = resume, check_folder(run, saved, resume, held > 0)
                if asked and not resume:
                    logger.info(f"{run} holds no run to resume: starting a new one")
                if not held:
                    check_origin(init_from, saved["data"], needed=tuple(stages) == (2,))
        _check_alike(workers, config, saved["data"], stages)
        resume, held = workers.broadcast(np.array([resume, held], np.int32)).tolist()
        resume = bool(resume)

        say(f"{describe(workers.strategy)}, {config.precision}, seed {config.seed}")
        words = tuple(read_vocabulary(data / VOCABULARY_FILE))
        # The checkpoint holds all weights: the files that they once came from need not be there.
        origin = None if held else init_from
        files = replace(config, weights="none", vectors=None) if held else config
        model = _build(files, words, manifest, workers, data)
        start_from(workers, model, origin)
        tokenizer = CaptionTokenizer(words, config.text.max_length, manifest.lowercase)
        warn_cut_captions(manifest, tokenizer.max_length)
        with _folder(workers, run, saved, data / VOCABULARY_FILE, resume, held > 0, say):
            left = _left(workers, model, config, run, trained, held, say)
            if left and workers.is_chief:
                tell_unknown_words(data, manifest, tokenizer, say)
            for number in left:
                heed = _heeding(lambda: workers.any_true(stop()), number)
                # Only the worker that caches features could ask the others meanwhile.
                bar = _heeding_bar(progress, _heeding(stop, number))
                stage = Stage(number, config, data, run, model, tokenizer, workers, bar, say, heed)
                epochs, backbone = stage.settings.epochs, stage.settings.backbone
                say(f"stage {number}: {epochs} epochs, backbone {backbone}")
                with _with_advice(run):
                    stage.fit(number == held, verbose)
                restore_best(workers, model, run, number)


def seconds_per_step(config: Config, data: Path, progress: Bar = silent_bar) -> dict[int, float]:
    """Measures a step of each stage on this machine; writes nothing but a feature cache.

    Args:
        config: of a run.
        data: folder of prepared data.
        progress: makes the bar of images while features are cached.

    Returns:
        Seconds, by the number of each stage that has an epoch.

    Raises:
        UserError: what `train` would refuse.
    """
    workers = Workers(mirrored_strategy())
    stages = [number for number in (1, 2) if config.stage(number).epochs]
    manifest = _checked_data(config, data, stages, workers.strategy)
    words = tuple(read_vocabulary(data / VOCABULARY_FILE))
    model = _build(config, words, manifest, workers, data)
    tokenizer = CaptionTokenizer(words, config.text.max_length, manifest.lowercase)
    parts = [Stage(n, config, data, data, model, tokenizer, workers, progress) for n in stages]
    with explain_damage(data):
        return {stage.number: stage.seconds_per_step(_WARM, _TIMED) for stage in parts}


def _silent(line: str) -> None:
    pass


def _checked_data(
    config: Config, data: Path, stages: Sequence[int], strategy: tf.distribute.Strategy
) -> Manifest:
    manifest = Manifest.load(data)
    train = manifest.splits["train"]
    check_stages(config, stages, train.images, strategy.num_replicas_in_sync)
    check_sampling(config, train.instances)
    check_vocabulary(data, manifest)
    return manifest


def _check_alike(
    workers: Workers, config: Config, data: dict[str, object], stages: Sequence[int]
) -> None:
    """Refuses workers that would not train the same.

    Raises:
        UserError: a worker was given other options or other data than the chief.
    """
    # The chief alone reads these two.
    shared = to_dict(replace(config, weights="none", vectors=None))
    digest = sha256_lines([json.dumps([shared, data, list(stages)], sort_keys=True)])
    own = np.frombuffer(digest.encode(), np.uint8).astype(np.int32)
    of_chief = workers.broadcast(own)
    with workers.fail_together():
        if not np.array_equal(own, of_chief):
            raise UserError(
                "workers.differ",
                "this worker was given other options or other prepared data than the chief: "
                "give all workers the same command, and copies of one --data",
            )


def _left(
    workers: Workers,
    model: DualPath,
    config: Config,
    run: Path,
    stages: Sequence[int],
    held: int,
    say: Say,
) -> Sequence[int]:
    """Gives the model the weights with which a run goes on, and returns the stages left to train.

    A stage that is done is not made again: it would ask for its features, only to rest.
    """
    if not held:
        return stages
    # Before the stage, which knows its cached features by the weights of the backbone.
    if resume_weights(workers, model, run, stages, held) < config.stage(held).epochs:
        return [number for number in stages if number >= held]
    say(f"stage {held} is done")
    restore_best(workers, model, run, held)
    return [number for number in stages if number > held]


@contextmanager
def _with_advice(run: Path) -> Iterator[None]:
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


@contextmanager
def _folder(
    workers: Workers,
    run: Path,
    saved: dict[str, dict],
    vocabulary: Path,
    resume: bool,
    held: bool,
    say: Say,
) -> Iterator[None]:
    """Keeps the folder of a run open on the chief; the others have none."""
    with ExitStack() as stack:
        with workers.fail_together(), _with_advice(run):
            if workers.is_chief:
                run.mkdir(parents=True, exist_ok=True)
                stack.enter_context(exclusive_lock(run))
                for folder in (run, run / CHECKPOINTS_FOLDER):
                    remove_stale(folder)
                # Again: until here another process could write there.
                check_folder(run, saved, resume, held)
                _keep_vocabulary(run, saved, vocabulary, resume, say)
                # It makes the folder a run: `check_folder` knows what a kill leaves before it.
                if not resume:
                    write_json(run / CONFIG_FILE, saved)
        yield


def _heeding(stop: Callable[[], bool], stage: int) -> Callable[..., None]:
    """Returns what raises `Stopped` where `stop` says so, whatever it is called with."""

    def heed(*done: int) -> None:
        if stop():
            raise Stopped(f"stopped in stage {stage}: the same command with --resume goes on there")

    return heed


def _heeding_bar(progress: Bar, heed: Callable[..., None]) -> Bar:
    """Returns a bar that can stop what it reports on."""

    @contextmanager
    def bar() -> Iterator[Report]:
        with progress() as report:
            yield lambda *done: (heed(), report(*done))

    return bar


def _build(
    config: Config,
    words: Sequence[str],
    manifest: Manifest,
    workers: Workers,
    data: Path,
) -> DualPath:
    if not workers.is_chief:
        # Its weights come from the chief.
        config = replace(config, weights="none", vectors=None)
    with workers.strategy.scope():
        return starting_model(config, words, manifest, data)


def _keep_vocabulary(
    run: Path, saved: dict[str, dict], vocabulary: Path, resume: bool, say: Say
) -> None:
    """Gives a run the vocabulary that it is used with, also where it was lost since."""
    own = run / VOCABULARY_FILE
    if own.is_file() and sha256_file(own) == saved["data"]["vocabulary_sha256"]:
        return
    with publish_file(own) as temporary:
        shutil.copyfile(vocabulary, temporary)
    if resume:
        say(f"{own} was lost: put back from {vocabulary}")
