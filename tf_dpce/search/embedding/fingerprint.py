"""A digest of a model: equal if and only if its embeddings can be compared."""

from __future__ import annotations

from pathlib import Path

from tf_dpce.config import CONFIG_FILE
from tf_dpce.data.manifest import VOCABULARY_FILE
from tf_dpce.export.versions import MODEL_FILE, find_version, is_run
from tf_dpce.files import sha256_file, sha256_lines


def model_digest(path: Path) -> str:
    """Returns a SHA-256 of everything that decides the embeddings of a model.

    It covers the graph, the variables and the assets of an exported version; of a run folder the
    configuration, the vocabulary and the best checkpoint.

    Args:
        path: a run folder, an exported version, or a folder of versions, of which the newest
            counts, as for `tf_dpce.load`.

    Raises:
        UserError: `path` is none of them, or a run that cannot be loaded.
    """
    if is_run(path):
        # Imported for runs only, so that an exported model is searched without the trainer.
        from tf_dpce.training.run_folder import check_run

        folder = path
        files = [path / CONFIG_FILE, path / VOCABULARY_FILE, check_run(path)[2]]
    else:
        folder = find_version(path)
        parts = [*(folder / "variables").rglob("*"), *(folder / "assets").rglob("*")]
        files = [folder / MODEL_FILE, *sorted(part for part in parts if part.is_file())]
    return sha256_lines(
        f"{file.relative_to(folder).as_posix()} {sha256_file(file)}" for file in files
    )
