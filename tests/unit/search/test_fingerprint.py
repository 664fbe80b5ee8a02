"""The digest of a model covers what decides its embeddings, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tf_dpce.errors import UserError
from tf_dpce.search.fingerprint import model_digest
from tf_dpce.training.checkpoint import Progress, best_path, save_checkpoint


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
    "config.json": "{}",
    "vocabulary.txt": "a dog",
    "checkpoints/stage1-best.npz": "first",
    "checkpoints/stage1-epoch0001-step000000.npz": "last",
    "history.csv": "epoch",
}


def test_the_digest_changes_with_the_files_that_decide_embeddings(tmp_path: Path):
    decisive = {
        "saved_model.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
        "assets/words.txt",
        "config.json",
        "vocabulary.txt",
        "checkpoints/stage1-best.npz",
    }
    for number, files in enumerate((EXPORT, RUN)):
        before = model_digest(write(tmp_path / f"{number}", files))
        for name in files:
            folder = tmp_path / f"{number}-{name.replace('/', '-')}"
            changed = model_digest(write(folder, files | {name: "changed"})) != before
            assert changed == (name in decisive), name


def test_the_same_model_elsewhere_has_the_same_digest(tmp_path: Path):
    assert model_digest(write(tmp_path / "a/1", EXPORT)) == model_digest(
        write(tmp_path / "7", EXPORT)
    )


def test_of_a_folder_of_versions_the_newest_by_number_counts(tmp_path: Path):
    newest = model_digest(write(tmp_path / "model/10", EXPORT | {"saved_model.pb": "newest"}))
    write(tmp_path / "model/9", EXPORT)
    assert model_digest(tmp_path / "model") == newest != model_digest(tmp_path / "model/9")


def test_of_a_run_the_better_stage_counts(tmp_path: Path):
    first = model_digest(write(tmp_path, RUN))
    save_checkpoint(best_path(tmp_path, 1), [], Progress(1, 1, 0, best_rsum=310.5))
    better = model_digest(tmp_path)
    assert better != first
    save_checkpoint(best_path(tmp_path, 2), [], Progress(2, 1, 0, best_rsum=290.0))
    assert model_digest(tmp_path) == better
    save_checkpoint(best_path(tmp_path, 2), [], Progress(2, 2, 0, best_rsum=320.0))
    assert model_digest(tmp_path) != better


def test_a_folder_without_a_model_is_refused(tmp_path: Path):
    # The codes belong to exports and runs.
    for number, files in enumerate(({}, {"notes.txt": "none"}, {"config.json": "{}"})):
        with pytest.raises(UserError, match=str(tmp_path)):
            model_digest(write(tmp_path / str(number), files))
