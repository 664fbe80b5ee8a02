"""The digest of a model covers what decides its embeddings, and nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tf_dpce.config import Config, to_dict
from tf_dpce.errors import UserError
from tf_dpce.search.embedding.fingerprint import model_digest


def config(words: str, lowercase: bool = True) -> str:
    """`config.json` of a run with these words."""
    digest = hashlib.sha256(words.encode()).hexdigest()
    data = {"vocabulary_sha256": digest, "num_instances": 1, "lowercase": lowercase}
    return json.dumps({"config": to_dict(Config()), "data": data})


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


EXPORT = {
    "saved_model.pb": "graph",
    "variables/variables.index": "index",
    "variables/variables.data-00000-of-00001": "weights",
    "assets/words.txt": "a dog",
    "assets.extra/examples.npz": "examples",
    "model_card.md": "card",
    "fingerprint.pb": "fingerprint",
}
RUN = {
    "config.json": config("a dog"),
    "vocabulary.txt": "a dog",
    "checkpoints/stage1-best.npz": "first",
    "checkpoints/stage1-epoch0001-step000000.npz": "last",
    "history.csv": "epoch",
}
# A run whose words or settings are others; by any other contents it could not be loaded.
OTHERS = {
    "config.json": {"config.json": config("a dog", lowercase=False)},
    "vocabulary.txt": {"config.json": config("a cat"), "vocabulary.txt": "a cat"},
}
DECISIVE = (
    *("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"),
    *("assets/words.txt", "config.json", "vocabulary.txt", "checkpoints/stage1-best.npz"),
)


def test_the_digest_changes_with_the_files_that_decide_embeddings(tmp_path: Path):
    for number, files in enumerate((EXPORT, RUN)):
        before = model_digest(write(tmp_path / f"{number}", files))
        # Wherever the folder is.
        assert model_digest(write(tmp_path / f"again/{number}", files)) == before
        for name in files:
            folder = tmp_path / f"{number}-{name.replace('/', '-')}"
            others = OTHERS.get(name, {name: "changed"})
            changed = model_digest(write(folder, files | others)) != before
            assert changed == (name in DECISIVE), name


def test_a_folder_without_a_model_is_refused(tmp_path: Path):
    # The codes belong to exports and runs.
    for number, files in enumerate(({}, {"notes.txt": "none"}, {"config.json": "{}"})):
        with pytest.raises(UserError, match=str(tmp_path)):
            model_digest(write(tmp_path / str(number), files))
