"""The folder of a run: its configuration, and how a trained model is loaded from it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_dpce.config import CONFIG_FILE, Config, from_dict
from tf_dpce.data.manifest import VOCABULARY_FILE, Manifest
from tf_dpce.data.teacher_files import teacher_digest
from tf_dpce.errors import UserError
from tf_dpce.files import read_json, sha256_file, sha256_lines, write_json
from tf_dpce.preprocessing.vocabulary import read_vocabulary
from tf_dpce.training.checkpoint import find_checkpoint, restore_checkpoint

if TYPE_CHECKING:
    from tf_dpce.models.dual_path import DualPath
    from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

SOURCES_FILE = "sources.json"
TRAIN_DIGEST = "train_digest"
PIECES_FILE = "pieces.txt"  # what WordPiece learnt, beside the vocabulary
PIECES_DIGEST = "pieces_sha256"
TEACHER_DIGEST = "teacher_sha256"
_OF_MANIFEST = ("source", "split_digest", "vocabulary_size", "vocabulary_sha256", "lowercase")
# Keys of the data that a model cannot be built without.
_NEEDED = {"vocabulary_sha256": str, "num_instances": int, "lowercase": bool}


@dataclass(frozen=True)
class Run:
    """A trained run, loaded.

    Attributes:
        folder: folder of the run.
        config: configuration that it was trained with.
        model: model with the weights of a checkpoint.
        tokenizer: sentences -> ids.
        provenance: source and digests of the data that it was trained on.
        checkpoint: file of the weights.
    """

    folder: Path
    config: Config
    model: DualPath
    tokenizer: CaptionTokenizer
    provenance: dict[str, object]
    checkpoint: Path


def load_run(folder: Path, checkpoint: str = "best") -> Run:
    """Loads a run with its best or its last weights.

    Args:
        folder: folder of the run.
        checkpoint: "best" or "last", see `find_checkpoint`.

    Raises:
        UserError: the folder is no run, has no checkpoint, or has the vocabulary of another run.
    """
    config, data, path = check_run(folder, checkpoint)

    from tf_dpce.models.build import build_model
    from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

    pieces = config.text.tokenizer == "wordpiece"
    words = read_vocabulary(folder / (PIECES_FILE if pieces else VOCABULARY_FILE))
    tokenizer = CaptionTokenizer.of_run(words, config.text, data["lowercase"])
    # The checkpoint holds the backbone too: its own weights need not be at hand.
    plain = replace(config, weights="none", precision="float32")
    model = build_model(plain, tokenizer.vocabulary_size, data["num_instances"])
    restore_checkpoint(path, model.variables)
    return Run(folder, config, model, tokenizer, data, path)


def check_run(folder: Path, checkpoint: str = "best") -> tuple[Config, dict[str, Any], Path]:
    """Finds what `load_run` needs, and needs no TensorFlow for it.

    Returns:
        The configuration, the `data` part of `config.json`, and the file of the weights.

    Raises:
        UserError: the folder is no run, has no checkpoint, or has the vocabulary of another run.
    """
    config, data = run_config(folder), read_config(folder)["data"]
    wrong = [key for key, kind in _NEEDED.items() if type(data.get(key)) is not kind]
    if wrong:
        raise _wrong_config(folder, f"{' and '.join(wrong)} of the data are missing")
    _check_words(folder / VOCABULARY_FILE, data["vocabulary_sha256"])
    if config.text.tokenizer == "wordpiece":
        _check_words(folder / PIECES_FILE, data.get(PIECES_DIGEST))
    return config, data, find_checkpoint(folder, checkpoint)


def run_config(folder: Path) -> Config:
    """Returns the configuration of a run.

    Raises:
        UserError: the folder is no run, or `config.json` has settings that this version does not
            know.
    """
    values = read_config(folder)["config"]
    try:
        return from_dict(values)
    except UserError as error:
        raise _wrong_config(folder, str(error)) from None


def read_config(folder: Path) -> dict[str, dict]:
    """Returns the contents of a run's `config.json`: `config`, its settings, and `data`.

    Raises:
        UserError: the folder is no run.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UserError("run.config", f"{folder} is not a run: it has no {CONFIG_FILE}", path)
    saved = read_json(path)
    parts = saved if isinstance(saved, dict) else {}
    if not all(isinstance(parts.get(part), dict) for part in ("config", "data")):
        raise _wrong_config(folder, "something else than train wrote it")
    return saved


def _wrong_config(folder: Path, reason: str) -> UserError:
    path = folder / CONFIG_FILE
    message = (
        f"{path}: {reason}: put the run's own file back, or use the version that trained the run"
    )
    return UserError("run.config", message, path)


def _check_words(path: Path, digest: str | None) -> None:
    if not path.is_file() or sha256_file(path) != digest:
        raise UserError(
            "run.vocabulary",
            f"{path} is missing or is not the one that the run was trained with: put that file "
            "back, or give its train command again with --resume, which does so",
            path,
        )


def stored_pieces(folders: Iterable[Path | None]) -> list[str]:
    """Returns the pieces of words of the first run that has its own; none if no run has."""
    for folder in folders:
        path = folder / PIECES_FILE if folder else None
        if path and path.is_file() and (folder / CONFIG_FILE).is_file():
            if sha256_file(path) == read_config(folder)["data"].get(PIECES_DIGEST):
                return read_vocabulary(path)
    return []


def run_digest(folder: Path) -> str:
    """Returns the digest of a run's `config.json`, which its checkpoints hold.

    Raises:
        UserError: the folder is no run.
    """
    # Keys keep their order: among `lr_multipliers` the last match wins.
    return sha256_lines([json.dumps(read_config(folder))])


def provenance(manifest: Manifest, teacher: str | None = None) -> dict[str, object]:
    """Returns the `data` part of a run's `config.json`, which identifies its training data.

    Args:
        manifest: of the training data.
        teacher: file or folder of a teacher's embeddings, if there is one.
    """
    train = manifest.splits["train"]
    return {
        **{key: getattr(manifest, key) for key in _OF_MANIFEST},
        "num_instances": train.instances,
        # Instances are numbered in the order of the shards, which the split's digest leaves out.
        TRAIN_DIGEST: sha256_lines(shard.sha256 for shard in train.shards),
        **({TEACHER_DIGEST: teacher_digest(Path(teacher))} if teacher else {}),
    }


def write_sources(folder: Path, manifest: Manifest, config: Config) -> None:
    """Writes `sources.json`, for the model card: counts of the data, and digests of the files.

    Args:
        folder: folder of the run.
        manifest: of the training data.
        config: configuration of the run, whose weights and word vectors are read here.
    """
    files = [Path(path) for path in (config.weights, *(config.vectors or ()))]
    splits = {
        name: {"images": split.images, "captions": split.captions}
        for name, split in manifest.splits.items()
    }
    digests = {path.name: sha256_file(path) for path in files if path.is_file()}
    write_json(folder / SOURCES_FILE, {"splits": splits, "files": digests})


def read_sources(folder: Path) -> dict[str, dict]:
    """Returns what `write_sources` wrote; nothing for a run of an earlier version."""
    path = folder / SOURCES_FILE
    return read_json(path) if path.exists() else {}
