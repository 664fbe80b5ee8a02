"""Which model vectors come from: a digest of what decides its answers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tf_dpce.data.manifest import VOCABULARY_FILE
from tf_dpce.export.versions import MODEL_FILE, find_version
from tf_dpce.files import sha256_file, sha256_lines
from tf_dpce.training.kept import find_checkpoint
from tf_dpce.training.run_folder import CONFIG_FILE


def model_digest(path: Path) -> str:
    """Returns a SHA-256 that tells models apart.

    It covers the graph, the variables and the assets of an exported version, or the
    configuration, the vocabulary and the best checkpoint of a run folder.

    Args:
        path: as `tf_dpce.load` takes it: a run folder, an exported version, or a folder of
            versions, of which the newest counts.

    Raises:
        UserError: `path` is none of them, or a run without a best checkpoint.
    """
    if (path / CONFIG_FILE).is_file():
        names = (CONFIG_FILE, VOCABULARY_FILE)
        return _digest(path, [*(path / name for name in names), find_checkpoint(path, "best")])
    version = find_version(path)
    parts = [*(version / "variables").rglob("*"), *(version / "assets").rglob("*")]
    return _digest(version, [version / MODEL_FILE, *sorted(filter(Path.is_file, parts))])


def _digest(folder: Path, files: Iterable[Path]) -> str:
    parts = (f"{file.relative_to(folder).as_posix()} {sha256_file(file)}" for file in files)
    return sha256_lines(parts)
