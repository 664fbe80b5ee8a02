"""Bulk embedding: input shards to shards of embeddings, resumable and idempotent.

`embed_shard` is the unit of work. One process calls it for each input shard, `--shard I/N` for each
N-th, and an engine such as `search.ray_engine` calls it on many machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.export.encoder import Encoder
from tf_dpce.logging import logger, progress
from tf_dpce.preprocessing.file_kinds import explain
from tf_dpce.preprocessing.status import OK
from tf_dpce.search.embedding.input_shards import Inputs, InputShard
from tf_dpce.search.embedding.inputs import Item, Refusal, read_item
from tf_dpce.search.embedding.shard_writer import ShardWriter
from tf_dpce.search.embedding.store import SHARD_SIZE, KindProgress, StoreManifest, rejected_file

_CHUNK = 64  # items whose contents are in memory at a time, and as many being read
_THREADS = 8  # more than cores, because they wait for the disk or the network
# What is wrong with one input shard; the others are embedded all the same.
_OF_ONE_SHARD = ("inputs.shard", "ray.worker_died")

# Calls `embed_shard` for each input shard, wherever that is; says how many inputs are done; and
# yields what went wrong.
Advance = Callable[[int], None]
Engine = Callable[[Iterable[InputShard], ShardWriter, Advance], Iterator[UserError]]


def embed(
    encoder: Encoder | Engine,
    inputs: Inputs,
    folder: Path | str,
    model: str,
    shard_size: int = SHARD_SIZE,
    part: tuple[int, int] = (1, 1),
) -> tuple[int, KindProgress]:
    """Embeds `inputs` into `folder`, shard by shard.

    A run that was killed continues with the shards that are missing, and ends with the same bytes
    as one that was not killed. A run over finished inputs changes nothing. Whoever finishes the
    last shard completes the folder. If a shard cannot be read, the others are embedded first.
    Memory holds the embeddings of one shard and the contents of two chunks of items, however many
    inputs there are.

    Args:
        encoder: the model that embeds, in this process; or an engine, which calls `embed_shard` for
            each input shard on whatever machines.
        inputs: result of `find_images` or `find_texts`.
        folder: folder to write, or its address; it may hold the other kind already.
        model: digest of the model, see `model_digest`.
        shard_size: number of inputs in a shard.
        part: the I-th of N processes that share the work, which need not run at the same time.

    Returns:
        The number of inputs of this part that earlier runs had finished, and its embeddings.

    Raises:
        UserError: `folder` holds embeddings of another model or of other inputs, an input shard
            cannot be read, or no input could be embedded.

    Example:
        >>> model = Path("saved_models/scenes")
        >>> inputs = find_images(["images/**/*.jpg"])
        >>> encoder = tf_dpce.load(model)
        >>> before, done = embed(encoder, inputs, Path("embeddings"), model_digest(model))
        >>> before, done.embedded, done.rejected
        (0, 50, 0)
    """
    engine = encoder if callable(encoder) else in_process(encoder)
    inputs.check_part(*part)
    writer = ShardWriter(folder, inputs.kind)
    begun = writer.begin(model, inputs, shard_size)
    size = begun.kinds[inputs.kind].shard_size
    counts = inputs.counts(size)
    own = range(part[0] - 1, len(counts), part[1])
    if part[1] > len(counts):
        smaller = f"--shard-size {inputs.total // part[1]} would give each its own"
        logger.info(f"{part[1]} parts share {len(counts)} shards: {smaller}")
    missing = set() if begun.kinds[inputs.kind].complete else set(own) - writer.finished()
    before = sum(counts[number] for number in own if number not in missing)
    if missing:
        total = sum(counts[number] for number in own)
        _run(engine, _chosen(inputs, size, missing), writer, before, total)
    return before, _finish(writer, begun, own, len(counts))


def in_process(encoder: Encoder) -> Engine:
    """Returns the engine that embeds one input shard after the other in this process."""

    def engine(
        shards: Iterable[InputShard], writer: ShardWriter, advance: Advance
    ) -> Iterator[UserError]:
        for shard in shards:
            try:
                embed_shard(encoder, shard, writer, advance)
            except UserError as error:
                yield error

    return engine


def _chosen(inputs: Inputs, size: int, missing: set[int]) -> Iterator[InputShard]:
    """Yields the input shards that are missing, each with as many inputs as were counted.

    Raises:
        UserError: there are fewer now.
    """
    shards = iter(inputs.shards(size))
    for number, count in enumerate(inputs.counts(size)):
        shard = next(shards, None)
        if shard is None or shard.count != count:
            message = f"the {inputs.kind} changed while they were embedded: embed them elsewhere"
            raise UserError("embeddings.inputs_changed", message)
        if number in missing:
            yield shard


def _run(
    engine: Engine, shards: Iterable[InputShard], writer: ShardWriter, before: int, total: int
) -> None:
    """Embeds shards, and reports those that cannot be read after all others.

    Raises:
        UserError: one cannot.
    """
    failed: list[UserError] = []
    with progress(writer.kind) as display:
        display.update(before, total)
        for error in engine(
            shards, writer, lambda more: display.update(display.done + more, total)
        ):
            if error.code not in _OF_ONE_SHARD:
                raise error
            logger.warning(f"not embedded: {error.message}")
            failed.append(error)
    if failed:
        message = f"{failed[0].message} ({len(failed)} shards failed; the others are finished)"
        remedy = "mend that and run the same command again"
        raise UserError("embeddings.failed_shards", f"{message}: {remedy}", failed[0].path)


def _finish(writer: ShardWriter, begun: StoreManifest, own: range, total: int) -> KindProgress:
    """Completes the folder if all of its shards are there, and returns what is done of `own`."""
    done = begun.kinds[writer.kind]
    if not done.complete and len(writer.finished()) == total:
        done = writer.complete(begun, writer.read(range(total))).kinds[writer.kind]
    if not done.complete:
        shards = [item.shard for item in writer.read(own)]
    elif done.embedded:
        shards = [done.shards[number] for number in own]
    else:
        refused = writer.path(rejected_file(writer.kind))
        message = f"none of the {done.total} {writer.kind} has an embedding: see {refused}"
        raise UserError("embeddings.none", message, refused)
    return replace(done, total=sum(shard.taken for shard in shards), shards=tuple(shards))


def embed_shard(
    encoder: Encoder, shard: InputShard, writer: ShardWriter, advance: Advance = lambda more: None
) -> None:
    """Embeds an input shard and publishes the result.

    Args:
        encoder: the model that embeds.
        shard: the inputs.
        writer: where the embeddings go.
        advance: is told how many more inputs are done.

    Raises:
        UserError: the shard cannot be read, or has fewer inputs than when it was planned.
    """
    vectors, records, rejected = [], [], []
    for item, answer, facts in _answers(encoder, writer.kind, shard.walk()):
        content = {"path": item.path} if item.text is None else {"text": item.text}
        record = {"id": item.id, **content}
        if isinstance(answer, Refusal):
            rejected.append(record | {"status": answer.status, "reason": answer.reason})
        else:
            records.append(record | facts)
            vectors.append(answer)
        advance(1)
    if len(records) + len(rejected) != shard.count:
        message = f"{shard.source} changed while it was embedded: run embed into another folder"
        raise UserError("embeddings.inputs_changed", message, writer.place)
    rows = np.asarray(vectors, np.float32).reshape(-1, encoder.dimension)
    writer.publish(shard.number, rows, records, rejected)


def _answers(
    encoder: Encoder, kind: str, items: Iterable[Item]
) -> Iterator[tuple[Item, np.ndarray | Refusal, dict[str, Any]]]:
    """Yields each item with its embedding, float32 `[D]`, or why it has none, and its facts."""
    for chunk, read in read_ahead(items):
        usable = [content for content, _ in read if not isinstance(content, Refusal)]
        answers = iter(encode_contents(encoder, kind, usable))
        for item, (content, facts) in zip(chunk, read, strict=True):
            yield item, content if isinstance(content, Refusal) else next(answers), facts


def encode_contents(
    encoder: Encoder, kind: str, contents: Sequence[str | bytes]
) -> list[np.ndarray | Refusal]:
    """Returns for each content its embedding, float32 `[D]`, or why it has none."""
    if not contents:
        return []
    vectors, statuses = encoder.encode_with_status(kind, contents)
    return [
        vector if status == OK else Refusal(status, explain(status, content))
        for vector, status, content in zip(vectors, statuses.tolist(), contents, strict=True)
    ]


def read_ahead(items: Iterable[Item]) -> Iterator[tuple[list[Item], list[Any]]]:
    """Yields chunks of items with what `read_item` returns of them; the next is read meanwhile."""
    remaining = iter(items)
    with ThreadPoolExecutor(_THREADS) as pool:
        chunk = list(islice(remaining, _CHUNK))
        contents = pool.map(read_item, chunk)
        while chunk:
            following = list(islice(remaining, _CHUNK))
            next_contents = pool.map(read_item, following)
            yield chunk, list(contents)
            chunk, contents = following, next_contents
