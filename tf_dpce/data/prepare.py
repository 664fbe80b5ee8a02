"""Turns pairs into a prepared folder: shards, vocabulary, rejected list and manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tf_dpce.data.manifest import (
    MANIFEST_FILE,
    REJECTED_FILE,
    SHARD_BYTES,
    VOCABULARY_FILE,
    Manifest,
    discard,
    refuse_foreign,
    written_shards,
)
from tf_dpce.datasets.listing import NO_FILE, SPLITS, Image, Rejected, gather
from tf_dpce.datasets.names import nearest_name
from tf_dpce.datasets.repeats import count_repeats, join_copies
from tf_dpce.errors import UserError
from tf_dpce.files import exclusive_lock, remove_stale, sha256_file, sha256_lines, temporary_folder
from tf_dpce.logging import logger
from tf_dpce.preprocessing.vocabulary import (
    count_words,
    rank_words,
    without_words,
    write_vocabulary,
)
from tf_dpce.preprocessing.word_vectors import check_vectors, look_up_vectors
from tf_dpce.remote_path import AnyPath, RemotePath, any_path
from tf_dpce.storage import open_folder

if TYPE_CHECKING:
    from tf_dpce.data.validate_images import Engine

_NEAREST_NAMES = 5  # so many missing files get the nearest name, for which a folder is searched


@dataclass(frozen=True)
class Prepared:
    """What `prepare` left behind.

    Attributes:
        manifest: the manifest that it wrote.
        rejected: what it rejected.
        files: paths of the files that it wrote.
        words: the vocabulary.
    """

    manifest: Manifest
    rejected: tuple[Rejected, ...]
    files: tuple[AnyPath, ...]
    words: tuple[str, ...]


def prepare(
    items: Iterable[Image | Rejected],
    out: AnyPath,
    *,
    source: str,
    seed: int = 0,
    lowercase: bool = False,
    vectors: Path | None = None,
    workers: int = 1,
    shard_bytes: int = SHARD_BYTES,
    engine: Engine = "local",
) -> Prepared:
    """Writes the shards, vocabulary, rejected list and manifest of a data set.

    Every image is decoded once, with the decoder of training; what cannot be used is listed.
    Images of other formats are stored as PNG: see `to_png`.

    The manifest is written last: a folder without it is not prepared. What `out` held before stays
    whole until everything new is ready beside it. The bytes written are a function of the images,
    captions and options, not of `workers` or `engine`.

    Args:
        items: what a reader yields; they are read while no other process may write to `out`.
        out: folder to write; it is created if it is missing. What goes to an object store is
            written here first, and nothing keeps other processes from writing there.
        source: name of the reader, for the manifest.
        seed: seed of the order of training images; validation and test have the reader's order.
        lowercase: whether words are lower-cased, here and whenever captions are encoded.
        vectors: file of word vectors; the vocabulary then has only words with a vector in it.
        workers: number of threads that decode.
        shard_bytes: a new shard is begun once one has this many bytes.
        engine: "local" decodes in this process, "ray" on the machines of a Ray cluster, which read
            the images by the same paths.

    Raises:
        UserError: there is nothing to use in a split, an input is wrong, `out` holds what
            `prepare` did not write, or another process is writing there.
    """
    if vectors:
        check_vectors(vectors)
    with _staging(out) as folder:
        images, rejected = read_images(items)
        refuse_foreign(out, (image.path for image in images))

        # Now, because most mistakes have been found without TensorFlow.
        from tf_dpce.data.caption_lengths import count_lengths
        from tf_dpce.data.shards import SplitWriter
        from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

        known = None
        if vectors:
            # Before the images: a damaged file is found out before they are decoded.
            captions = [text for item in images if item.split == "train" for text in item.captions]
            found = list(count_words(captions, lowercase))
            known = set(compress(found, look_up_vectors(vectors, found, lowercase)[1]))
        join_copies(images)
        writer = SplitWriter(folder, rejected, workers, shard_bytes, engine)
        splits = {split: writer.write(split, _in_order(images, split, seed)) for split in SPLITS}
        counts = count_words(writer.training_captions, lowercase)
        words = rank_words(counts, known)
        if not words:
            message = f"no word of the training captions has a vector in {vectors}"
            raise UserError("vocabulary.empty", message, vectors)
        write_vocabulary(folder / VOCABULARY_FILE, words)
        _write_rejected(folder / REJECTED_FILE, rejected)
        manifest = Manifest(
            source=source,
            seed=seed,
            lowercase=lowercase,
            vocabulary_size=len(words),
            vocabulary_sha256=sha256_file(folder / VOCABULARY_FILE),
            vocabulary_coverage=sum(counts[word] for word in words) / counts.total(),
            split_digest=sha256_lines(sorted(writer.split_lines)),
            splits=splits,
            rejected=len(rejected),
            caption_lengths=count_lengths(
                writer.training_captions, CaptionTokenizer(words, 1, lowercase)
            ),
            converted=writer.converted,
            repeats=count_repeats(writer.stored),
        )
        files = _publish(folder, out, manifest)
    return Prepared(manifest, tuple(rejected), files, tuple(words))


def read_images(items: Iterable[Image | Rejected]) -> tuple[list[Image], list[Rejected]]:
    """Reads what a reader yields, and drops captions without a word.

    An image that is left without a caption is rejected.
    """
    images, rejected = gather(items)
    empty = iter(without_words([text for image in images for text in image.captions]))
    left: list[Image] = []
    for image in images:
        captions = [text for text in image.captions if not next(empty)]
        if captions:
            dropped = len(image.captions) - len(captions)
            rejected += [Rejected(str(image.path), "empty caption")] * dropped
            left.append(replace(image, captions=captions) if dropped else image)
        else:
            rejected.append(Rejected(str(image.path), "no caption but empty ones"))
    return left, rejected


def _in_order(images: Sequence[Image], split: str, seed: int) -> list[Image]:
    """Returns the images of a split; for training mixed, so that sequential reads are mixed."""

    def rank(image: Image) -> bytes:
        return hashlib.sha256(f"{seed}\t{image.image_id}".encode()).digest()

    own = [image for image in images if image.split == split]
    return sorted(own, key=rank) if split == "train" else own


def _write_rejected(path: Path, rejected: Sequence[Rejected]) -> None:
    """Writes what was rejected; a missing file, if it is one of the first, with its like."""
    missing = [item.path for item in rejected if item.reason == NO_FILE][:_NEAREST_NAMES]
    nearest = {
        path: {"nearest": name} for path in missing if (name := nearest_name(any_path(path)))
    }
    if nearest:
        first, name = next(iter(nearest.items()))
        logger.warning(f"{first}: {NO_FILE}; the nearest name there is {name['nearest']}")
    items = (
        {"path": item.path, "reason": item.reason} | nearest.get(item.path, {}) for item in rejected
    )
    text = "".join(f"{json.dumps(item, ensure_ascii=False)}\n" for item in items)
    # A folder's name need not be UTF-8.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextmanager
def _staging(out: AnyPath) -> Iterator[Path]:
    """Yields an empty folder inside `out`, on the same disk, while nobody else writes there."""
    if isinstance(out, RemotePath):
        # Whether anything can be written there is found out before the work.
        files = open_folder(out)
        files.write(".prepare", b"")
        files.remove(".prepare")
        with TemporaryDirectory(prefix="tf_dpce-") as folder:
            yield Path(folder)
        return
    found = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with exclusive_lock(out):
            remove_stale(out)
            with temporary_folder(out / "prepare") as folder:
                yield folder
    finally:
        if not found:
            # After a mistake it is as empty as it was made.
            with suppress(OSError):
                out.rmdir()


def _publish(folder: Path, out: AnyPath, manifest: Manifest) -> tuple[AnyPath, ...]:
    """Replaces what `out` held; from its first step to its last the folder has no manifest."""
    files = open_folder(out)
    earlier = written_shards(out) or set()
    discard(out)
    for name in earlier:
        files.remove(name)
    finished = sorted(folder.iterdir())
    for item in finished:
        files.publish(item.name, item)
    manifest.save(out)
    return (*(out / item.name for item in finished), out / MANIFEST_FILE)
