"""Which operations the binary of each TF Serving links, by the table `operations.tsv`.

`python -m pipelines._operations` enters the operations of an installed TensorFlow into the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tf_dpce.errors import UserError

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
        name: name of the operation.
        library: "core", or "text" for TensorFlow Text.
        first: the first known version of that library that has the operation.
        last: the last one.
        strings: whether the operation always reads or writes strings, which live in the memory of
            the CPU.
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
    """Returns the key of `SERVING` for a version of TF Serving such as 2.19.1.

    Raises:
        UserError: if its operations are not known.
    """
    minor = ".".join(text.split(".")[:2])
    if minor not in SERVING:
        known = f"{next(iter(SERVING))} to {NEWEST}"
        message = f"TF Serving {text} is not known: give a version from {known}"
        raise UserError("verify.serving_version", message)
    return minor


def servings_with(name: str) -> list[str]:
    """Returns the versions of TF Serving that link an operation, oldest first."""
    operation = known_operations().get(name)
    if operation is None:
        return []
    return [v for v, inside in SERVING.items() if operation.is_in(inside[operation.library])]
