"""The checksums of an exported version's files, by which damage is found."""

from __future__ import annotations

from pathlib import Path

from tf_dpce.export import Differs
from tf_dpce.files import sha256_file

# `sha256sum --check` reads it, from within the folder of the version.
CHECKSUM_FILE = "files.sha256"


def write_checksums(version: Path) -> None:
    """Writes the SHA-256 of every file of a version."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(_digests(version).items())]
    (version / CHECKSUM_FILE).write_text("".join(lines))


def check_files(version: Path) -> str:
    """Compares every file with the checksum that it had when the version was made.

    Returns:
        What was found, in one line.

    Raises:
        Differs: if a file changed, is missing or was added, or the list of checksums is missing or
            damaged. A list that lost lines is noticed by the files that it does not name.
    """
    try:
        lines = (version / CHECKSUM_FILE).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Differs(f"{CHECKSUM_FILE} cannot be read: {error}") from None
    found, broken = _digests(version), []
    for digest, _, name in (line.partition("  ") for line in lines):
        present = found.pop(name, None)
        if present != digest:
            broken.append(f"{name or digest} {'differs' if present else 'is missing'}")
    broken += [f"{name} is not in {CHECKSUM_FILE}" for name in sorted(found)]
    if broken:
        raise Differs(", ".join(broken))
    return f"{len(lines)} files have their checksums"


def _digests(version: Path) -> dict[str, str]:
    """Returns the SHA-256 of all files except the list itself, by their names in the version."""
    files = {str(path.relative_to(version)): path for path in version.rglob("*") if path.is_file()}
    return {name: sha256_file(path) for name, path in files.items() if name != CHECKSUM_FILE}
