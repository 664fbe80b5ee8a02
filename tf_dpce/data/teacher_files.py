"""Embeddings of another model by id, as users have them: Parquet, `.npz`, or a folder of `embed`.

    teacher.parquet    a column id, of text, and a column embedding, of lists of numbers
    teacher.npz        an array id, texts [N], and an array embedding, floats [N, D]
    a folder           what `embed` wrote of the images, of the captions, or of both

The id of an image is the one that `prepare` recorded; those of its captions are `ID#0`, `ID#1` and
so on.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tf_dpce.errors import UserError, shorten
from tf_dpce.files import read_json, sha256_file, sha256_files

_KINDS = ("images", "texts")
# What readers make of a damaged file, beside Arrow's own errors.
_DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile)
_ROWS = 4096  # rows that are in memory at a time


def read_teacher(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields ids, UTF-8 `[rows]`, and embeddings, float32 `[rows, D]`; needs no TensorFlow.

    Raises:
        UserError: the file is missing, damaged or of another kind, lacks a column, or has
            embeddings of several widths.
    """
    import pyarrow as pa

    try:
        for ids, vectors in _reader(path):
            # Of a file's own, such as numbers, to those of texts.
            names = np.strings.encode(np.asarray(ids, np.str_), "utf-8")
            if vectors.shape != (len(names), vectors.shape[-1]) or not vectors.size:
                raise ValueError(f"{len(names)} ids, but embeddings of shape {vectors.shape}")
            yield names, vectors.astype(np.float32)
    except (pa.ArrowException, *_DAMAGED) as error:
        raise _wrong(path, f"cannot be read ({shorten(str(error))}): write it again") from None


def teacher_digest(path: Path) -> str:
    """Returns the SHA-256 of what a file, or a folder of `embed`, holds."""
    if path.is_file():
        return sha256_file(path)
    return sha256_files(path, sorted(p for kind in _KINDS for p in path.glob(f"{kind}*.[jn]*")))


def check_widths(path: Path, widths: set[int]) -> None:
    """Refuses embeddings of several widths, which cannot be compared with one another.

    Raises:
        UserError: there are several.
    """
    if len(widths) > 1:
        found = " and of ".join(map(str, sorted(widths)[:2]))
        message = f"{path} has embeddings of {found} numbers: give those of one model"
        raise UserError("teacher.width", message, path)


# --- the kinds of files ---------------------------------------------------------------------------


def _reader(path: Path) -> Iterable[tuple[Any, np.ndarray]]:
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise _wrong(path, "does not exist: check --teacher")
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path)
    if path.suffix.lower() == ".npz":
        return _read_npz(path)
    raise _wrong(path, "is neither .parquet nor .npz, nor a folder that embed wrote")


def _read_parquet(path: Path) -> Iterator[tuple[Any, np.ndarray]]:
    from pyarrow import compute, parquet

    with parquet.ParquetFile(path) as table:
        _check_columns(path, table.schema_arrow.names)
        for batch in table.iter_batches(_ROWS, columns=["id", "embedding"]):
            lists = batch["embedding"]
            widths = compute.list_value_length(lists).fill_null(0).unique()
            check_widths(path, set(widths.to_pylist()))
            numbers = lists.flatten().cast("float32").to_numpy(False)
            yield batch["id"].to_pylist(), numbers.reshape(len(lists), -1)


def _read_npz(path: Path) -> Iterator[tuple[Any, np.ndarray]]:
    # The arrays of a `.npz` cannot be mapped: they are in memory as long as they are read.
    # Opened here, because NumPy does not close a file that is no archive.
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        _check_columns(path, stored.files)
        yield stored["id"], stored["embedding"]


def _read_folder(folder: Path) -> Iterator[tuple[Any, np.ndarray]]:
    import pyarrow as pa
    from pyarrow import json

    # Else an id in the form of a date would be read as one.
    schema = pa.schema([("id", pa.string())])
    options = json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    found = [folder / f"{kind}.json" for kind in _KINDS if (folder / f"{kind}.json").is_file()]
    if not found:
        raise _wrong(folder, "holds no embeddings: give a folder that embed wrote, or a file")
    for manifest in map(read_json, found):
        if not manifest["complete"]:
            raise _wrong(folder, "is unfinished: run embed again")
        for stem in (folder / s["name"] for s in manifest["shards"] if s["embedded"]):
            records = json.read_json(stem.with_suffix(".jsonl"), parse_options=options)
            yield (
                records["id"].to_pylist(),
                np.load(stem.with_suffix(".npy"), mmap_mode="r", allow_pickle=False),
            )


def _check_columns(path: Path, names: Iterable[str]) -> None:
    if missing := {"id", "embedding"} - set(names):
        has = shorten(", ".join(names) or "nothing")
        message = f"{path} has no {' and no '.join(sorted(missing))}, but {has}: rename what it has"
        raise UserError("teacher.columns", message, path)


def _wrong(path: Path, reason: str) -> UserError:
    return UserError("teacher.file", f"{path} {reason}", path)
