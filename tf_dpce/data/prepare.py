"""From pairs to a prepared folder: shards, vocabulary, rejected list and manifest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import tensorflow as tf

from tf_dpce.data.manifest import (
    MANIFEST_FILE,
    MAX_INSTANCES,
    REJECTED_FILE,
    VOCABULARY_FILE,
    Manifest,
    SplitInfo,
)
from tf_dpce.data.shards import SHARD_BYTES, encode_record, write_shards
from tf_dpce.errors import UserError
from tf_dpce.files import publish_file, remove_stale, sha256_file, sha256_lines
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.image import check, decode
from tf_dpce.preprocessing.vectors import vector_words
from tf_dpce.preprocessing.vocabulary import (
    count_words,
    rank_words,
    without_words,
    write_vocabulary,
)
from tf_dpce.sources.audit import audit
from tf_dpce.sources.pair import SPLITS, Pair, Picture, Rejected, group_pairs


@dataclass(frozen=True)
class Prepared:
    """What `prepare` left behind: the manifest, what it refused, and the files' paths."""

    manifest: Manifest
    rejected: tuple[Rejected, ...]
    files: tuple[Path, ...]


def prepare(
    items: Iterable[Pair | Rejected],
    out: Path,
    *,
    source: str,
    seed: int = 0,
    lowercase: bool = False,
    vectors: Path | None = None,
    workers: int = 1,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Writes the shards, vocabulary, rejected list and manifest of a data set.

    Every picture is decoded once, with the decoder of training; what cannot be used is listed.
    The manifest goes last: until it is there the folder counts as not prepared. What `out` held
    before stays whole until everything new is ready beside it. The bytes written are a function
    of the pictures, captions and options, not of `workers`.

    Args:
        items: what a reader yields.
        out: folder to write, made where it is missing.
        source: name of the reader, for the manifest.
        seed: orders the training pictures; validation and test keep the reader's order.
        lowercase: whether words are lower-cased, here and whenever captions are encoded.
        vectors: keeps only the words that have a vector in this file.
        workers: number of threads that decode.
        shard_bytes: a new shard is begun once one has this many bytes.
        progress: called with the pictures done and their total.

    Raises:
        UserError: there is nothing to use in a split, or an input is wrong.
    """
    known = vector_words(vectors) if vectors else None
    pictures, rejected = _drop_empty_captions(*group_pairs(items))
    pictures = _order(pictures, seed)
    out.mkdir(parents=True, exist_ok=True)
    remove_stale(out)
    with _staging(out) as folder:
        writer = _SplitWriter(folder, rejected, workers, shard_bytes, len(pictures), progress)
        splits = {
            split: writer.write(split, [item for item in pictures if item.split == split])
            for split in SPLITS
        }
        counts = count_words(writer.training_captions, lowercase)
        words = _vocabulary(counts, known, vectors)
        write_vocabulary(folder / VOCABULARY_FILE, words)
        _write_rejected(folder / REJECTED_FILE, rejected)
        manifest = Manifest(
            source=source,
            seed=seed,
            lowercase=lowercase,
            vocabulary_size=len(words),
            vocabulary_sha256=sha256_file(folder / VOCABULARY_FILE),
            vocabulary_coverage=sum(counts[word] for word in words) / counts.total(),
            split_digest=sha256_lines(sorted(writer.members)),
            splits=splits,
            rejected=len(rejected),
        )
        files = _publish(folder, out, manifest)
    return Prepared(manifest, tuple(rejected), files)


def discard(out: Path) -> None:
    """Declares a folder not prepared, before anything that its manifest speaks of is changed."""
    (out / MANIFEST_FILE).unlink(missing_ok=True)


def picture_fault(contents: bytes) -> str | None:
    """Returns why bytes are no picture that training can decode, or None where they are one."""
    try:
        code = int(_status(tf.constant(contents)))
    except tf.errors.InvalidArgumentError:
        code = status.UNDECODABLE
    return None if code == status.OK else status.REASONS[code]


# As one graph it holds Python's lock for a quarter of the time that single operations do.
@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _status(contents: tf.Tensor) -> tf.Tensor:
    def by_decoding() -> tf.Tensor:
        values = tf.size(decode(contents))
        return tf.where(values > 0, status.OK, status.UNDECODABLE)

    code = check(contents)
    return tf.cond(code == status.OK, by_decoding, lambda: code)


@dataclass
class _SplitWriter:
    """Audits and writes splits, and gathers what concerns all of them."""

    folder: Path
    rejected: list[Rejected]
    workers: int
    shard_bytes: int
    total: int
    progress: Callable[[int, int], None] | None
    done: int = 0
    members: list[str] = field(default_factory=list)
    training_captions: list[str] = field(default_factory=list)

    def write(self, split: str, pictures: Sequence[Picture]) -> SplitInfo:
        kept: list[Picture] = []
        instances: dict[str, int] = {}
        records = self._records(pictures, kept, instances)
        shards = write_shards(self.folder, split, records, self.shard_bytes)
        if not kept:
            raise UserError(self._empty_split(split, len(pictures)))
        captions = [caption for picture in kept for caption in picture.captions]
        if split == "train":
            self.training_captions = captions
        self.members += [f"{split}\t{picture.image_id}" for picture in kept]
        return SplitInfo(len(kept), len(captions), len(instances), tuple(shards))

    def _records(
        self, pictures: Sequence[Picture], kept: list[Picture], instances: dict[str, int]
    ) -> Iterator[bytes]:
        for item in audit(pictures, picture_fault, status.MAX_BYTES, self.workers):
            self.done += 1
            if self.progress:
                self.progress(self.done, self.total)
            if item.reason:
                self.rejected.append(Rejected(str(item.picture.path), item.reason))
                continue
            kept.append(item.picture)
            instance = instances.setdefault(item.picture.instance, len(instances))
            if instance >= MAX_INSTANCES:
                raise UserError(f"there are more than {MAX_INSTANCES} instances: use fewer")
            yield encode_record(item.picture, item.contents, instance)

    def _empty_split(self, split: str, pictures: int) -> str:
        if not pictures:
            return f"no picture is in the split {split!r}: train, val and test each need one"
        last = self.rejected[-1]
        return (
            f"none of the {pictures} pictures of the split {split!r} can be used, "
            f"the last of them {last.path}: {last.reason}"
        )


def _drop_empty_captions(
    pictures: Sequence[Picture], rejected: list[Rejected]
) -> tuple[list[Picture], list[Rejected]]:
    """Leaves out captions without a word, and pictures that are left without a caption."""
    flags = iter(without_words([text for picture in pictures for text in picture.captions]))
    kept: list[Picture] = []
    rejected = list(rejected)
    for picture in pictures:
        captions = tuple(text for text in picture.captions if not next(flags))
        dropped = len(picture.captions) - len(captions)
        if captions:
            rejected += [Rejected(str(picture.path), "empty caption")] * dropped
            kept.append(replace(picture, captions=captions))
        else:
            rejected.append(Rejected(str(picture.path), "no caption but empty ones"))
    return kept, rejected


def _order(pictures: Sequence[Picture], seed: int) -> list[Picture]:
    """Mixes the training pictures, so that sequential reads are mixed; the others stay."""

    def rank(picture: Picture) -> bytes:
        if picture.split != "train":
            return b""
        return hashlib.sha256(f"{seed}\t{picture.image_id}".encode()).digest()

    return sorted(pictures, key=rank)


def _vocabulary(counts: Counter[str], known: set[str] | None, vectors: Path | None) -> list[str]:
    words = rank_words(counts, known)
    if not words:
        raise UserError(f"no word of the training captions has a vector in {vectors}")
    return words


def _write_rejected(path: Path, rejected: Sequence[Rejected]) -> None:
    lines = (
        json.dumps({"path": item.path, "reason": item.reason}, ensure_ascii=False)
        for item in rejected
    )
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Yields an empty folder inside `out`, on the same disk, that `remove_stale` knows."""
    folder = out / f".prepare.{os.getpid()}.tmp"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _publish(folder: Path, out: Path, manifest: Manifest) -> tuple[Path, ...]:
    """Replaces what `out` held; from its first step to its last the folder has no manifest."""
    discard(out)
    for split in SPLITS:
        for shard in out.glob(f"{split}-*.tfrecord"):
            shard.unlink()
    files = []
    for item in sorted(folder.iterdir()):
        with publish_file(out / item.name) as temporary:
            item.rename(temporary)
        files.append(out / item.name)
    manifest.save(out)
    return (*files, out / MANIFEST_FILE)
