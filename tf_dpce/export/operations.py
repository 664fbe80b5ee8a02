"""Which operations the binary of each TF Serving links, by the table `operations.tsv`.

`python -m pipelines._operations` enters the operations of an installed TensorFlow into the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tf_dpce.errors import UserError

TABLE = Path(__file__).with_name("operations.tsv")

# The known versions of TF Serving, oldest first. It links the TensorFlow of the same number, and
# TensorFlow Text 2.12.1 from 2.13 to 2.19, 2.20.0 in 2.20.
SERVING = tuple(f"2.{minor}" for minor in range(13, 21))
NEWEST = SERVING[-1]


@dataclass(frozen=True)
class Operation:
    """One line of the table.

    Attributes:
        name: name of the operation.
        first: the first version of TF Serving, of `SERVING`, that links it.
        last: the last one.
        strings: whether the operation always reads or writes strings, which live in the memory of
            the CPU.
    """

    name: str
    first: str
    last: str
    strings: bool


@cache
def known_operations() -> dict[str, Operation]:
    """Returns the table, by the names of operations."""
    rows = (line.split("\t") for line in TABLE.read_text().splitlines()[1:])
    return {
        name: Operation(name, first, last, kind == "string") for name, first, last, kind in rows
    }


def serving_version(text: str) -> str:
    """Returns the entry of `SERVING` for a version of TF Serving such as 2.19.1.

    Raises:
        UserError: if its operations are not known.
    """
    minor = ".".join(text.split(".")[:2])
    if minor not in SERVING:
        message = f"TF Serving {text} is not known: give a version from {SERVING[0]} to {NEWEST}"
        raise UserError("verify.serving_version", message)
    return minor


def servings_with(name: str) -> tuple[str, ...]:
    """Returns the versions of TF Serving that link an operation, oldest first."""
    operation = known_operations().get(name)
    if operation is None:
        return ()
    return SERVING[SERVING.index(operation.first) : SERVING.index(operation.last) + 1]
