"""Which operations the binary of each TF Serving links, by the table `operations.tsv`.

`python -m pipelines._operations` makes the table from installed TensorFlows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tf_dpce.errors import UserError
from tf_dpce.export.bare import Library
from tf_dpce.export.graph import STRING
from tf_dpce.export.wire import Message

TABLE = Path(__file__).with_name("operations.tsv")

# The versions of TensorFlow and TensorFlow Text inside each TF Serving, oldest first.
SERVING = {
    **{f"2.{minor}": {"core": f"2.{minor}", "text": "2.12.1"} for minor in range(13, 20)},
    "2.20": {"core": "2.20", "text": "2.20.0"},
}
NEWEST = list(SERVING)[-1]
# The versions of each of the two, oldest first.
LIBRARIES = {
    library: list(dict.fromkeys(inside[library] for inside in SERVING.values()))
    for library in ("core", "text")
}


@dataclass(frozen=True)
class Operation:
    """One line of the table.

    Attributes:
        name: of the operation.
        library: "core", or "text" for TensorFlow Text.
        first: the first version of that library, of those known, that has it.
        last: the last one.
        strings: whether it always reads or writes strings, which live in a host's memory.
    """

    name: str
    library: str
    first: str
    last: str
    strings: bool

    def is_in(self, version: str) -> bool:
        """Whether a version of its library has it."""
        order = LIBRARIES[self.library].index
        return order(self.first) <= order(version) <= order(self.last)


@cache
def known_operations() -> dict[str, Operation]:
    """Returns the table, by the names of operations."""
    lines = TABLE.read_text().splitlines()[1:]
    rows = (line.split("\t") for line in lines)
    return {name: Operation(name, *rest, kind == "string") for name, *rest, kind in rows}


def serving_version(text: str) -> str:
    """Returns a version of TF Serving as `SERVING` has it, given one such as 2.19.1.

    Raises:
        UserError: its operations are not known.
    """
    minor = ".".join(text.split(".")[:2])
    if minor not in SERVING:
        known = f"{next(iter(SERVING))} to {NEWEST}"
        raise UserError(f"TF Serving {text} is not known: give a version from {known}")
    return minor


def servings_with(name: str) -> list[str]:
    """Returns the versions of TF Serving that link an operation, oldest first."""
    operation = known_operations().get(name)
    if operation is None:
        return []
    return [v for v, inside in SERVING.items() if operation.is_in(inside[operation.library])]


def registered_operations(tensorflow: Path, text: Path | None = None) -> dict[str, bool]:
    """Returns the operations that a TensorFlow knows once its library is loaded.

    Args:
        tensorflow: the folder of its package.
        text: the folder of the libraries of TensorFlow Text; its operations alone are returned.

    Returns:
        By the name of each, whether it always reads or writes strings.
    """
    core = _parse_list(Library(tensorflow).operation_list())
    if text is None:
        return core
    every = _parse_list(Library(tensorflow, text).operation_list())
    return {name: strings for name, strings in every.items() if name not in core}


def merge(
    table: Iterable[Operation], library: str, version: str, found: dict[str, bool]
) -> list[Operation]:
    """Returns the table with what one version of a library has, sorted by name.

    Raises:
        UserError: the version is in no known TF Serving.
    """
    if version not in LIBRARIES[library]:
        raise UserError(f"{library} {version} is in none of the TF Servings {list(SERVING)}")
    merged = {operation.name: operation for operation in table}
    for name in found.keys() | {name for name, row in merged.items() if row.library == library}:
        row = merged.pop(name, None)
        had = {v for v in LIBRARIES[library] if row and row.is_in(v)} - {version}
        have = sorted(had | ({version} if name in found else set()), key=LIBRARIES[library].index)
        if have:
            strings = found.get(name, row is not None and row.strings)
            merged[name] = Operation(name, library, have[0], have[-1], strings)
    return [merged[name] for name in sorted(merged)]


def write_table(path: Path, table: Iterable[Operation]) -> None:
    """Writes the table, tab-separated."""
    lines = ["operation\tlibrary\tfirst\tlast\tkind"]
    for row in table:
        kind = "string" if row.strings else "other"
        lines.append("\t".join((row.name, row.library, row.first, row.last, kind)))
    path.write_text("".join(line + "\n" for line in lines))


def _parse_list(content: bytes) -> dict[str, bool]:
    # An OpList holds OpDefs: name, inputs, outputs; each of these its type, where it is fixed.
    return {
        operation.text(1): any(
            argument.one(3, 0) == STRING
            for place in (2, 3)
            for argument in operation.messages(place)
        )
        for operation in Message(content).messages(1)
    }
