"""A run folder: how one comes to be, is trained, and is loaded again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras

from tf_dpce.config import Config, from_dict, to_dict
from tf_dpce.data.manifest import VOCABULARY_FILE, Manifest
from tf_dpce.errors import UserError
from tf_dpce.files import publish_file, read_json, remove_stale, sha256_file, write_json
from tf_dpce.model import DualPath
from tf_dpce.preprocessing.text import CaptionEncoder
from tf_dpce.preprocessing.vocabulary import read_vocabulary
from tf_dpce.training.build import build_model, caption_encoder, load_vectors
from tf_dpce.training.checkpoint import checkpoint_path, restore_checkpoint
from tf_dpce.training.features import Bar, silent_bar
from tf_dpce.training.stages import Stage
from tf_dpce.training.strategy import describe, make_strategy

CONFIG_FILE = "config.json"
_PROVENANCE = ("source", "split_digest", "vocabulary_size", "vocabulary_sha256", "lowercase")


@dataclass(frozen=True)
class Run:
    """A trained run, loaded.

    Attributes:
        folder: of the run.
        config: it was trained with.
        words: the vocabulary.
        lowercase: whether sentences are lower-cased.
        model: with the weights of a checkpoint.
        caption_encoder: sentences -> ids.
        image_size: side of the square pictures, in pixels.
        provenance: the data it was trained on: source, digests of split and vocabulary.
    """

    folder: Path
    config: Config
    words: tuple[str, ...]
    lowercase: bool
    model: DualPath
    caption_encoder: CaptionEncoder
    image_size: int
    provenance: dict[str, object]


def load_run(folder: Path, checkpoint: str = "best") -> Run:
    """Loads a run with its best or last weights, of stage 2 where it got there.

    Raises:
        UserError: no run, no checkpoint, or a vocabulary that is not the run's.
    """
    saved = _read_config(folder)
    config, provenance = from_dict(saved["config"]), saved["data"]
    words = tuple(read_vocabulary(folder / VOCABULARY_FILE))
    if sha256_file(folder / VOCABULARY_FILE) != provenance["vocabulary_sha256"]:
        raise UserError(
            f"{folder / VOCABULARY_FILE} is not the vocabulary that the run was trained with: "
            "put the run's own file back"
        )
    # The checkpoint holds the trunk too: its own weights need not be at hand.
    model = build_model(replace(config, weights="none"), len(words), provenance["num_instances"])
    stages = [s for s in (2, 1) if checkpoint_path(folder, s, checkpoint).exists()]
    path = checkpoint_path(folder, stages[0] if stages else 1, checkpoint)
    restore_checkpoint(path, model.variables)
    lowercase = bool(provenance["lowercase"])
    encoder = caption_encoder(config, words, lowercase)
    size = config.image.input_size
    return Run(folder, config, words, lowercase, model, encoder, size, provenance)


def train(
    config: Config,
    data: Path,
    run: Path,
    stages: Sequence[int] = (1, 2),
    init_from: Path | None = None,
    resume: bool = False,
    say: Callable[[str], None] = lambda line: None,
    progress: Bar = silent_bar,
    verbose: int = 0,
) -> None:
    """Trains the stages of a configuration in order and leaves all in the run folder.

    Args:
        config: of the run.
        data: folder of prepared data.
        run: folder to make, or to go on with where `resume`.
        stages: numbers of the stages.
        init_from: folder of a run whose best weights to start from.
        resume: whether to go on from the last checkpoint.
        say: called with a line now and then: devices, word vectors, stages.
        progress: makes the bar of pictures while features are cached.
        verbose: Keras's.

    Raises:
        UserError: whatever the user can mend, before the first step.
    """
    config = _absolute(config)
    manifest = Manifest.load(data)
    saved = {"config": to_dict(config), "data": _provenance(manifest)}
    _check_folder(run, saved, resume)
    words = tuple(read_vocabulary(data / VOCABULARY_FILE))
    keras.utils.set_random_seed(config.seed)
    strategy = make_strategy()
    say(f"{describe(strategy)}, seed {config.seed}")
    with strategy.scope():
        model = build_model(config, len(words), saved["data"]["num_instances"])
        if config.vectors is not None:
            known = load_vectors(model, Path(config.vectors), words)
            say(f"{known} of {len(words)} words start from {config.vectors}")
    if init_from is not None:
        _start_from(model, init_from, saved["data"])
    if not resume:
        _write_folder(run, saved, data / VOCABULARY_FILE)
    encoder = caption_encoder(config, words, manifest.lowercase)
    for number in stages:
        stage = Stage(number, config, data, run, model, encoder, strategy, progress)
        if stage.settings.epochs == 0:
            continue
        say(f"stage {number}: {stage.settings.epochs} epochs, trunk {stage.settings.trunk}")
        stage.fit(resume, verbose)
        restore_checkpoint(checkpoint_path(run, number, "best"), model.variables)


def _absolute(config: Config) -> Config:
    """Makes a run resumable from any working folder."""
    weights, vectors = config.weights, config.vectors
    if weights not in ("imagenet", "none"):
        weights = str(Path(weights).resolve())
    if vectors is not None:
        vectors = str(Path(vectors).resolve())
    return replace(config, weights=weights, vectors=vectors)


def _provenance(manifest: Manifest) -> dict[str, object]:
    data = {key: getattr(manifest, key) for key in _PROVENANCE}
    return {**data, "num_instances": manifest.splits["train"].instances}


def _check_folder(run: Path, saved: dict[str, object], resume: bool) -> None:
    if resume:
        _check_same(run, saved)
        remove_stale(run)
        remove_stale(run / "checkpoints")
    elif run.exists() and any(run.iterdir()):
        raise UserError(f"{run} is not empty: go on with --resume, or choose another --run")


def _write_folder(run: Path, saved: dict[str, object], vocabulary: Path) -> None:
    with publish_file(run / VOCABULARY_FILE) as temporary:
        shutil.copyfile(vocabulary, temporary)
    write_json(run / CONFIG_FILE, saved)


def _check_same(run: Path, saved: dict[str, object]) -> None:
    """A run can only go on with what it began with."""
    before = _read_config(run)
    for part, remedy in (("config", "options"), ("data", "prepared data")):
        differing = sorted(k for k, v in saved[part].items() if before[part].get(k) != v)
        if differing:
            raise UserError(
                f"{run / CONFIG_FILE} differs in {', '.join(differing)}: resume with the same "
                f"{remedy}, or choose another --run"
            )


def _start_from(model: DualPath, folder: Path, data: dict[str, object]) -> None:
    before = _read_config(folder)["data"]
    if before["vocabulary_sha256"] != data["vocabulary_sha256"]:
        raise UserError(f"{folder} was trained with another vocabulary than the data's")
    stages = [s for s in (2, 1) if checkpoint_path(folder, s, "best").exists()]
    path = checkpoint_path(folder, stages[0] if stages else 1, "best")
    restore_checkpoint(path, model.variables)


def _read_config(run: Path) -> dict[str, dict]:
    if not (run / CONFIG_FILE).is_file():
        raise UserError(f"{run} is not a run: it has no {CONFIG_FILE}")
    return read_json(run / CONFIG_FILE)
