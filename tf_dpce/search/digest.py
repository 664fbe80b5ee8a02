"""Which model vectors come from: a digest of what decides its answers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tf_dpce.errors import UserError
from tf_dpce.export.versions import MODEL_FILE, find_version
from tf_dpce.files import sha256_file, sha256_lines


def model_digest(path: Path) -> str:
    """Returns a SHA-256 that tells models apart.

    It covers the graph, the variables and the assets of an exported version, or the
    configuration, the vocabulary and the best checkpoint of a run folder.

    Args:
        path: as `tf_dpce.load` takes it: a run folder, an exported version, or a folder of
            versions, of which the newest counts.

    Raises:
        UserError: `path` is none of them.
    """
    if (path / "config.json").is_file():
        return _digest(path, _run_files(path))
    version = find_version(path)
    parts = [*(version / "variables").rglob("*"), *(version / "assets").rglob("*")]
    return _digest(version, [version / MODEL_FILE, *sorted(filter(Path.is_file, parts))])


def _run_files(run: Path) -> list[Path]:
    # By name stage 2 comes after stage 1, whose weights it has taken further.
    checkpoints = sorted((run / "checkpoints").glob("stage*-best.npz"))
    if not checkpoints:
        raise UserError(f"{run} has no best checkpoint yet: train it to its first validation")
    return [run / "config.json", run / "vocabulary.txt", checkpoints[-1]]


def _digest(folder: Path, files: Iterable[Path]) -> str:
    parts = (f"{file.relative_to(folder).as_posix()} {sha256_file(file)}" for file in files)
    return sha256_lines(parts)
