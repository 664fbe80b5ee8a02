"""The digests of an exported version's files, by which damage is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tf_dpce.files import sha256_file

# As `sha256sum --check` reads them, from within the folder of the version.
FILE = Path("files.sha256")


def write_seal(version: Path) -> None:
    """Writes the SHA-256 of every file of a version."""
    lines = [f"{sha256_file(version / name)}  {name}\n" for name in sorted(_names(version))]
    (version / FILE).write_text("".join(lines))


def read_seal(version: Path) -> dict[str, str]:
    """Returns the SHA-256 that each file had, by its name relative to the version.

    Raises:
        OSError: there is no list of digests.
        ValueError: it is damaged.
    """
    digests = {}
    for number, line in enumerate((version / FILE).read_text().splitlines(), 1):
        digest, _, name = line.partition("  ")
        inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        if len(digest) != 64 or not name or not inside:
            raise ValueError(f"{FILE}, line {number}: no SHA-256 and name of a file")
        digests[name] = digest
    return digests


def broken_files(version: Path) -> Iterator[str]:
    """Yields what is wrong with each file that is not as it was when the version was made.

    A list that has lost lines is noticed by the files that it does not name.

    Raises:
        OSError: there is no list of digests.
        ValueError: it is damaged.
    """
    digests = read_seal(version)
    for name, digest in digests.items():
        path = version / name
        if not path.is_file():
            yield f"{name} is missing"
        elif sha256_file(path) != digest:
            yield f"{name} differs"
    for name in sorted(_names(version) - digests.keys()):
        yield f"{name} is not in {FILE}"


def _names(version: Path) -> set[str]:
    """Returns the names of all files but the list itself."""
    files = {str(p.relative_to(version)) for p in version.rglob("*") if p.is_file()}
    return files - {str(FILE)}
