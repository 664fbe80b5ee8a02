"""Bulk embedding: images or sentences to shards of vectors, resumable and idempotent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.files import publish_file, remove_stale, sole_writer
from tf_dpce.preprocessing.status import OK, REASONS
from tf_dpce.search.embedding_store import (
    IMAGES,
    SHARD_SIZE,
    Book,
    Progress,
    Shard,
    has_book,
    read_lines,
    rejected_file,
    write_lines,
)
from tf_dpce.search.inputs import Inputs, Item
from tf_dpce.search.reading import Refusal, read_ahead


class BatchEncoder(Protocol):
    """What searching needs of an encoder; that of `tf_dpce.load` has it."""

    @property
    def dimension(self) -> int:
        """D."""

    def images(self, items: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Returns float32 [N, D] and int32 [N] status."""

    def texts(self, sentences: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns float32 [N, D] and int32 [N] status."""


@dataclass(frozen=True)
class Outcome:
    """What a run of `embed` found and left.

    Args:
        before: number of inputs that earlier runs had finished.
        total: number of inputs.
        embedded: number of vectors now on disk.
        rejected: number of inputs without a vector.
    """

    before: int
    total: int
    embedded: int
    rejected: int


def embed(
    encoder: BatchEncoder,
    inputs: Inputs,
    folder: Path,
    model: str,
    shard_size: int = SHARD_SIZE,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Embeds `inputs` into `folder`, which may hold the other kind already.

    A run that was killed continues after its last whole shard and ends with the same bytes as
    one that was not. A run over finished inputs changes nothing. Memory holds the vectors of one
    shard and the contents of two chunks of items, however many inputs there are.

    Args:
        encoder: gives vectors.
        inputs: what to embed, from `find_images` or `find_texts`.
        folder: where to write; made if it is not there.
        model: the model's digest, see `model_digest`.
        shard_size: inputs a shard.
        progress: told (inputs done, inputs in all).

    Returns:
        The counts, those of earlier runs included.

    Raises:
        UserError: `folder` holds the work of another model or over other inputs, another
            process writes there, or not one input could be embedded.

    Example:
        >>> model = Path("saved_models/scenes")
        >>> inputs = find_images(["photos/**/*.jpg"])
        >>> embed(tf_dpce.load(model), inputs, Path("vectors"), model_digest(model))
        Outcome(before=0, total=8000, embedded=7998, rejected=2)
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = progress or (lambda done, total: None)
    with sole_writer(folder):
        remove_stale(folder)
        book = _open_book(folder, encoder.dimension, model, inputs)
        before = book.kinds[inputs.kind]
        after = _embed_rest(encoder, inputs, folder, book, shard_size, report)
    if not after.embedded:
        refused = rejected_file(folder, inputs.kind)
        raise UserError(f"none of the {inputs.total} {inputs.kind} has a vector: see {refused}")
    return Outcome(before.taken, after.total, after.embedded, after.rejected)


@dataclass
class _Encoded:
    """A shard as far as it is encoded: records of what has a vector, and of what has none."""

    vectors: list[np.ndarray] = field(default_factory=list)
    kept: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)

    @property
    def taken(self) -> int:
        return len(self.kept) + len(self.refused)

    def add(self, items: list[Item], answers: list[np.ndarray | Refusal]) -> None:
        for item, answer in zip(items, answers, strict=True):
            if isinstance(answer, Refusal):
                self.refused.append(_record(item) | dataclasses.asdict(answer))
            else:
                self.kept.append(_record(item))
                self.vectors.append(answer)


def _open_book(folder: Path, dimension: int, model: str, inputs: Inputs) -> Book:
    """Returns the folder's book, or a new one, with an entry for these inputs."""
    book = Book.load(folder) if has_book(folder) else Book(model, dimension, {})
    if book.model != model:
        raise UserError(f"{folder} holds vectors of another model: give another folder")
    done = book.kinds.get(inputs.kind, Progress(inputs.digest, inputs.total))
    if (done.inputs, done.total) != (inputs.digest, inputs.total):
        changed = f"other {inputs.kind}, or of files that changed since"
        raise UserError(f"{folder} holds vectors of {changed}: give another folder")
    return book.with_progress(inputs.kind, done)


def _embed_rest(
    encoder: BatchEncoder,
    inputs: Inputs,
    folder: Path,
    book: Book,
    shard_size: int,
    report: Callable[[int, int], None],
) -> Progress:
    done = book.kinds[inputs.kind]
    report(done.taken, done.total)
    items = islice(inputs.items(), done.taken, None)
    while not done.complete:
        encoded = _Encoded()
        for chunk, contents in read_ahead(islice(items, shard_size)):
            encoded.add(chunk, _encode(encoder, inputs.kind, contents))
            report(done.taken + encoded.taken, done.total)
        if not encoded.taken:
            raise UserError(f"the {inputs.kind} changed while they were embedded: start again")
        done = _write_shard(folder, inputs.kind, encoded, done, encoder.dimension)
        book = book.with_progress(inputs.kind, done)
        book.save(folder)
    return done


def _encode(encoder: BatchEncoder, kind: str, contents: list[Any]) -> list[np.ndarray | Refusal]:
    """Returns a vector or a refusal for each of `contents`; refusals pass through."""
    usable = [item for item in contents if not isinstance(item, Refusal)]
    if not usable:
        return contents
    vectors, status = encoder.images(usable) if kind == IMAGES else encoder.texts(usable)
    answers = (
        vector if code == OK else Refusal(code, REASONS[code])
        for vector, code in zip(vectors, status.tolist(), strict=True)
    )
    return [item if isinstance(item, Refusal) else next(answers) for item in contents]


def _write_shard(
    folder: Path, kind: str, encoded: _Encoded, done: Progress, dimension: int
) -> Progress:
    """Writes a shard's files; they count from the moment the book lists them."""
    name = f"{kind}-{len(done.shards):05d}"
    rows = np.asarray(encoded.vectors, np.float32).reshape(-1, dimension)
    with publish_file(folder / f"{name}.npy") as temporary, temporary.open("wb") as stream:
        np.save(stream, rows, allow_pickle=False)
    write_lines(folder / f"{name}.jsonl", encoded.kept)
    refused = rejected_file(folder, kind)
    # Lines beyond the book's count are of a shard that a killed run did not finish.
    earlier = list(islice(read_lines(refused), done.rejected)) if done.shards else []
    write_lines(refused, earlier + encoded.refused)
    shard = Shard(name, encoded.taken, len(encoded.kept))
    return dataclasses.replace(done, shards=(*done.shards, shard))


def _record(item: Item) -> dict[str, str | None]:
    if item.text is None:
        return {"id": item.id, "path": item.path}
    return {"id": item.id, "text": item.text}
