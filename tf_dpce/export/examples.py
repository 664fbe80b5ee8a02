"""Recorded inputs and outputs, by which anybody can check an exported model later."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tf_dpce.errors import UserError

FILE = Path("assets.extra") / "examples.npz"


@dataclass(frozen=True)
class Examples:
    """What one endpoint was given and what it must answer.

    Attributes:
        inputs: N byte strings.
        embeddings: float32 `[N, D]`.
        statuses: int32 `[N]`.
    """

    inputs: tuple[bytes, ...]
    embeddings: np.ndarray
    statuses: np.ndarray


def save_examples(path: Path, examples: dict[str, Examples]) -> None:
    """Writes the examples of each endpoint as `.npz`, without pickled objects.

    Byte strings are laid end to end with the places where each starts and ends, since a fixed
    width would cut their trailing zero bytes.
    """
    arrays = {}
    for endpoint, example in examples.items():
        lengths = [0, *map(len, example.inputs)]
        arrays[f"{endpoint}.bytes"] = np.frombuffer(b"".join(example.inputs), np.uint8)
        arrays[f"{endpoint}.offsets"] = np.cumsum(lengths, dtype=np.int64)
        arrays[f"{endpoint}.embedding"] = example.embeddings
        arrays[f"{endpoint}.status"] = example.statuses
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


def load_examples(path: Path, endpoints: Iterable[str]) -> dict[str, Examples]:
    """Reads what `save_examples` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: _read(arrays, name) for name in endpoints}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: export the model again") from None
    except Exception as error:
        raise UserError(f"{path} cannot be read ({error}): export the model again") from None


def _read(arrays: np.lib.npyio.NpzFile, endpoint: str) -> Examples:
    content = arrays[f"{endpoint}.bytes"].tobytes()
    offsets = arrays[f"{endpoint}.offsets"]
    inputs = tuple(content[a:b] for a, b in zip(offsets[:-1], offsets[1:], strict=True))
    return Examples(inputs, arrays[f"{endpoint}.embedding"], arrays[f"{endpoint}.status"])
