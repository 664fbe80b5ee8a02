"""A digest of a model: equal if and only if its embeddings can be compared."""

from __future__ import annotations

from pathlib import Path

from tf_dpce.config import CONFIG_FILE
from tf_dpce.data.manifest import VOCABULARY_FILE
from tf_dpce.export.versions import find_version, is_run, version_digest
from tf_dpce.files import sha256_files


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

        files = [path / CONFIG_FILE, path / VOCABULARY_FILE, check_run(path)[2]]
        return sha256_files(path, files)
    return version_digest(find_version(path))
