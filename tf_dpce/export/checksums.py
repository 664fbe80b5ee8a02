"""The checksums of an exported version's files, by which damage is found."""

from __future__ import annotations

from pathlib import Path

from tf_dpce.export import Differs
from tf_dpce.files import sha256_file

# `sha256sum --check` reads it, from within the folder of the version.
CHECKSUM_FILE = "files.sha256"


def write_checksums(version: Path) -> None:
    """Writes the SHA-256 of every file of a version."""
    lines = [f"{sha256_file(version / name)}  {name}\n" for name in sorted(_names(version))]
    (version / CHECKSUM_FILE).write_text("".join(lines))


def read_checksums(version: Path) -> dict[str, str]:
    """Returns the SHA-256 that each file had, by its name relative to the version.

    Raises:
        Differs: if the list of checksums is missing or damaged.
    """
    try:
        lines = (version / CHECKSUM_FILE).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Differs(f"{CHECKSUM_FILE} cannot be read: {error}") from None
    digests = {}
    for number, line in enumerate(lines, 1):
        digest, _, name = line.partition("  ")
        inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        if len(digest) != 64 or not name or not inside:
            raise Differs(f"{CHECKSUM_FILE}, line {number}: no SHA-256 and name of a file")
        digests[name] = digest
    return digests


def check_files(version: Path) -> str:
    """Compares every file with the checksum that it had when the version was made.

    Returns:
        What was found, in one line.

    Raises:
        Differs: if a file changed, is missing or was added, or the list of checksums is missing or
            damaged. A list that lost lines is noticed by the files that it does not name.
    """
    digests = read_checksums(version)
    broken = []
    for name, digest in digests.items():
        path = version / name
        if not path.is_file():
            broken.append(f"{name} is missing")
        elif sha256_file(path) != digest:
            broken.append(f"{name} differs")
    broken += [
        f"{name} is not in {CHECKSUM_FILE}" for name in sorted(_names(version) - digests.keys())
    ]
    if broken:
        raise Differs(", ".join(broken))
    return f"{len(digests)} files have their checksums"


def _names(version: Path) -> set[str]:
    """Returns the names of all files except the list itself."""
    files = {str(p.relative_to(version)) for p in version.rglob("*") if p.is_file()}
    return files - {CHECKSUM_FILE}
