"""A run folder: what it keeps, and how a trained model is loaded from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tf_dpce.config import Config, from_dict
from tf_dpce.data.manifest import VOCABULARY_FILE, Manifest
from tf_dpce.errors import UserError
from tf_dpce.files import read_json, sha256_file, sha256_lines
from tf_dpce.models.dual_path import DualPath
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.preprocessing.vocabulary import read_vocabulary
from tf_dpce.training.checkpoint import restore_checkpoint, with_remedy
from tf_dpce.training.kept import LOST_BEST, find_checkpoint
from tf_dpce.training.model_factory import build_model

CONFIG_FILE = "config.json"
TRAIN_DIGEST = "train_digest"
_OWN = "put the run's own file back"
_OF_MANIFEST = ("source", "split_digest", "vocabulary_size", "vocabulary_sha256", "lowercase")
# Of the data, what a model cannot be built without.
_NEEDED = {"vocabulary_sha256": str, "num_instances": int, "lowercase": bool}


@dataclass(frozen=True)
class Run:
    """A trained run, loaded.

    Attributes:
        folder: of the run.
        config: it was trained with.
        model: with the weights of a checkpoint.
        tokenizer: sentences -> ids.
        provenance: the data it was trained on: source, digests of split and vocabulary.
        checkpoint: the file whose weights `model` has.
    """

    folder: Path
    config: Config
    model: DualPath
    tokenizer: CaptionTokenizer
    provenance: dict[str, object]
    checkpoint: Path


def load_run(
    folder: Path, checkpoint: str = "best", say: Callable[[str], None] = lambda line: None
) -> Run:
    """Loads a run with its best weights, or the last ones, as `find_checkpoint` picks them.

    Args:
        folder: of the run.
        checkpoint: "best" or "last".
        say: called with a line where the last one is damaged.

    Raises:
        UserError: no run, no checkpoint, or a vocabulary that is not the run's.
    """
    config, provenance = run_config(folder), _known_data(folder)
    words = _own_words(folder, provenance["vocabulary_sha256"])
    path = find_checkpoint(folder, checkpoint, say)
    # The checkpoint holds the backbone too: its own weights need not be at hand.
    plain = replace(config, weights="none", precision="float32")
    model = build_model(plain, len(words), provenance["num_instances"])
    with with_remedy(LOST_BEST):
        restore_checkpoint(path, model.variables)
    tokenizer = CaptionTokenizer(words, config.text.max_length, provenance["lowercase"])
    return Run(folder, config, model, tokenizer, provenance, path)


def run_config(folder: Path) -> Config:
    """Returns the settings of a run.

    Raises:
        UserError: the folder is no run, or its `config.json` has settings that this version cannot
            read.
    """
    values = read_config(folder)["config"]
    try:
        return from_dict(values)
    except UserError as error:
        raise UserError(
            f"{folder / CONFIG_FILE}: {error}: {_OWN}, or use the version that wrote it"
        ) from None


def read_config(folder: Path) -> dict[str, dict]:
    """Returns what a run's `config.json` holds: `config`, its settings, and `data`.

    Raises:
        UserError: the folder is no run.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"{folder} is not a run: it has no {CONFIG_FILE}")
    saved = read_json(path)
    parts = saved if isinstance(saved, dict) else {}
    if not all(isinstance(parts.get(part), dict) for part in ("config", "data")):
        raise UserError(f"{folder} is not a run: its {CONFIG_FILE} was written by something else")
    return saved


def _known_data(folder: Path) -> dict[str, Any]:
    """Returns what a run keeps of its data, with all that a model is built from."""
    data = read_config(folder)["data"]
    wrong = [key for key, kind in _NEEDED.items() if type(data.get(key)) is not kind]
    if wrong:
        raise UserError(
            f"{folder / CONFIG_FILE} does not say {' and '.join(wrong)} of the data: {_OWN}"
        )
    return data


def _own_words(folder: Path, digest: str) -> tuple[str, ...]:
    path = folder / VOCABULARY_FILE
    if not path.is_file() or sha256_file(path) != digest:
        other = "not the vocabulary that the run was trained with"
        raise UserError(
            f"{path} is {other if path.exists() else 'missing'}: {_OWN}, a copy of the one in the "
            "data that it was trained on, or give its train command again with --resume, which "
            "does so"
        )
    return tuple(read_vocabulary(path))


def run_digest(folder: Path) -> str:
    """Returns a digest of what a run was started with, by which its checkpoints are known.

    It is that of what `config.json` holds, not of what this version would write there.

    Raises:
        UserError: the folder is no run.
    """
    return sha256_lines([json.dumps(read_config(folder), sort_keys=True)])


def provenance(manifest: Manifest) -> dict[str, object]:
    """Returns what a run keeps of its data, to know it again."""
    train = manifest.splits["train"]
    return {
        **{key: getattr(manifest, key) for key in _OF_MANIFEST},
        "num_instances": train.instances,
        # Instances are numbered in the order of the shards, which the split's digest leaves out.
        TRAIN_DIGEST: sha256_lines(shard.sha256 for shard in train.shards),
    }
