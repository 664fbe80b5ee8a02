"""Bulk embedding: images or texts to shards of embeddings, resumable and idempotent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.files import exclusive_lock, publish_file, remove_stale
from tf_dpce.logging import Progress, progress
from tf_dpce.preprocessing.file_kinds import explain
from tf_dpce.preprocessing.status import OK
from tf_dpce.search.embedding_store import (
    MANIFEST,
    SHARD_SIZE,
    KindProgress,
    Shard,
    StoreManifest,
    read_lines,
    rejected_file,
    write_lines,
)
from tf_dpce.search.inputs import Inputs, Item, Refusal, read_item

if TYPE_CHECKING:
    from tf_dpce.export.encoder import Encoder

_CHUNK = 64  # items whose contents are in memory at a time, and as many being read
_THREADS = 8  # more than cores, because they wait for the disk or the network


def embed(
    encoder: Encoder,
    inputs: Inputs,
    folder: Path,
    model: str,
    shard_size: int = SHARD_SIZE,
) -> tuple[int, KindProgress]:
    """Embeds `inputs` into `folder`, which may hold the other kind already.

    A run that was killed continues after its last finished shard and ends with the same bytes as
    one that was not killed. A run over finished inputs changes nothing. Memory holds the
    embeddings of one shard and the contents of two chunks of items, however many inputs there are.

    Args:
        encoder: the model that embeds.
        inputs: result of `find_images` or `find_texts`.
        folder: folder to write; it is created if it does not exist.
        model: digest of the model, see `model_digest`.
        shard_size: number of inputs in a shard.

    Returns:
        The number of inputs that earlier runs had finished, and the embeddings now on disk.

    Raises:
        UserError: `folder` holds embeddings of another model or of other inputs, another process
            writes there, or no input could be embedded.

    Example:
        >>> model = Path("saved_models/scenes")
        >>> inputs = find_images(["images/**/*.jpg"])
        >>> encoder = tf_dpce.load(model)
        >>> before, done = embed(encoder, inputs, Path("embeddings"), model_digest(model))
        >>> before, done.embedded, done.rejected
        (0, 50, 0)
    """
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder), progress(inputs.kind) as display:
        remove_stale(folder)
        manifest = _open_manifest(folder, encoder.dimension, model, inputs)
        done = manifest.kinds[inputs.kind]
        before = done.taken
        items = islice(inputs.items(), before, None)
        while not done.complete:
            done = _embed_shard(encoder, islice(items, shard_size), folder, inputs, done, display)
            manifest.kinds[inputs.kind] = done
            manifest.save(folder)
        display.update(done.taken, done.total)
    if not done.embedded:
        refused = rejected_file(folder, inputs.kind)
        message = f"none of the {inputs.total} {inputs.kind} has an embedding: see {refused}"
        raise UserError("embeddings.none", message, refused)
    return before, done


def _open_manifest(folder: Path, dimension: int, model: str, inputs: Inputs) -> StoreManifest:
    """Returns the folder's manifest, or a new one, with an entry for these inputs."""
    manifest = check_store(folder, model, inputs) or StoreManifest(model, dimension, {})
    manifest.kinds.setdefault(inputs.kind, KindProgress(inputs.digest, inputs.total))
    return manifest


def check_store(folder: Path, model: str, inputs: Inputs) -> StoreManifest | None:
    """Returns the manifest of a folder to embed into, or None if it has none.

    Raises:
        UserError: the folder holds embeddings of another model or of other inputs.
    """
    if not (folder / MANIFEST).is_file():
        return None
    manifest = StoreManifest.load(folder)
    if manifest.model != model:
        message = f"{folder} holds embeddings of another model: give another folder"
        raise UserError("embeddings.other_model", message, folder)
    done = manifest.kinds.get(inputs.kind)
    if done and (done.inputs, done.total) != (inputs.digest, inputs.total):
        raise UserError(
            "embeddings.other_inputs",
            f"{folder} holds embeddings of other {inputs.kind}, or of files that changed since: "
            "give another folder",
            folder,
        )
    return manifest


def _embed_shard(
    encoder: Encoder,
    items: Iterable[Item],
    folder: Path,
    inputs: Inputs,
    done: KindProgress,
    display: Progress,
) -> KindProgress:
    """Writes the files of the next shard; they count from the moment the manifest lists them."""
    kind, vectors, records, rejected = inputs.kind, [], [], []
    for item, answer, facts in _answers(encoder, kind, items):
        content = {"path": item.path} if item.text is None else {"text": item.text}
        record = {"id": item.id, **content}
        if isinstance(answer, Refusal):
            rejected.append(record | {"status": answer.status, "reason": answer.reason})
        else:
            records.append(record | facts)
            vectors.append(answer)
        display.update(done.taken + len(records) + len(rejected), done.total)
    taken = len(records) + len(rejected)
    if not taken:
        message = f"the {kind} changed while they were embedded: run embed into another folder"
        raise UserError("embeddings.inputs_changed", message, folder)
    name = f"{kind}-{len(done.shards):05d}"
    rows = np.asarray(vectors, np.float32).reshape(-1, encoder.dimension)
    with publish_file(folder / f"{name}.npy") as temporary, temporary.open("wb") as stream:
        np.save(stream, rows, allow_pickle=False)
    write_lines(folder / f"{name}.jsonl", records)
    # Lines beyond the count of the manifest are of a shard that a killed run did not finish.
    path = rejected_file(folder, kind)
    earlier = list(islice(read_lines(path), done.rejected)) if done.shards else []
    write_lines(path, earlier + rejected)
    return replace(done, shards=(*done.shards, Shard(name, taken, len(records))))


def _answers(
    encoder: Encoder, kind: str, items: Iterable[Item]
) -> Iterator[tuple[Item, np.ndarray | Refusal, dict[str, Any]]]:
    """Yields each item with its embedding, float32 `[D]`, or why it has none, and its facts."""
    for chunk, read in read_ahead(items):
        usable = [content for content, _ in read if not isinstance(content, Refusal)]
        vectors, statuses = encoder.encode_with_status(kind, usable) if usable else ((), ())
        encoded = zip(vectors, statuses, strict=True)
        for item, (content, facts) in zip(chunk, read, strict=True):
            if isinstance(content, Refusal):
                yield item, content, facts
                continue
            vector, status = next(encoded)
            code = int(status)
            yield item, vector if code == OK else Refusal(code, explain(code, content)), facts


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
