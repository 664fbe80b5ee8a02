"""From pairs to a prepared folder: shards, vocabulary, rejected list and manifest."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tf_dpce.data.caption_lengths import count_lengths
from tf_dpce.data.manifest import (
    MANIFEST_FILE,
    REJECTED_FILE,
    VOCABULARY_FILE,
    Manifest,
    discard,
    refuse_foreign,
    written_shards,
)
from tf_dpce.data.shards import SHARD_BYTES
from tf_dpce.data.split_writer import SplitWriter
from tf_dpce.datasets.pair import SPLITS, Image, Pair, Rejected, group_pairs
from tf_dpce.errors import UserError
from tf_dpce.files import (
    folder_aside,
    publish_file,
    remove_stale,
    sha256_file,
    sha256_lines,
    sole_writer,
)
from tf_dpce.preprocessing.vocabulary import (
    count_words,
    known_words,
    rank_words,
    without_words,
    write_vocabulary,
)
from tf_dpce.preprocessing.word_vectors import open_vectors


@dataclass(frozen=True)
class Prepared:
    """What `prepare` left behind: the manifest, what it refused, and the files' paths.

    `doubt` is a line on what may be missing of the word vectors, empty where nothing is.
    """

    manifest: Manifest
    rejected: tuple[Rejected, ...]
    files: tuple[Path, ...]
    doubt: str = ""


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

    Every image is decoded once, with the decoder of training; what cannot be used is listed. A
    BMP is stored as a PNG of the same pixels.
    The manifest goes last: until it is there the folder counts as not prepared. What `out` held
    before stays whole until everything new is ready beside it. The bytes written are a function
    of the images, captions and options, not of `workers`.

    Args:
        items: what a reader yields; asked for while no other process may write to `out`.
        out: folder to write, made where it is missing.
        source: name of the reader, for the manifest.
        seed: orders the training images; validation and test keep the reader's order.
        lowercase: whether words are lower-cased, here and whenever captions are encoded.
        vectors: keeps only the words that have a vector in this file, as `look_up` finds them.
        workers: number of threads that decode.
        shard_bytes: a new shard is begun once one has this many bytes.
        progress: called with the images done and their total.

    Raises:
        UserError: there is nothing to use in a split, an input is wrong, `out` holds what
            `prepare` did not write, or another process is writing there.
    """
    file = open_vectors(vectors) if vectors else None
    with _staging(out) as folder:
        images, rejected = drop_empty_captions(*group_pairs(items))
        refuse_foreign(out, (image.path for image in images))
        # Before the images: a damaged file is found out before they are decoded.
        known = known_words(file, _training_captions(images), lowercase) if file else None
        images = _order(images, seed)
        writer = SplitWriter(folder, rejected, workers, shard_bytes, len(images), progress)
        splits = {
            split: writer.write(split, [item for item in images if item.split == split])
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
            caption_lengths=count_lengths(writer.training_captions, words, lowercase),
            bitmaps=writer.bitmaps,
        )
        files = _publish(folder, out, manifest)
    return Prepared(manifest, tuple(rejected), files, file.doubt if file else "")


def drop_empty_captions(
    images: Sequence[Image], rejected: list[Rejected]
) -> tuple[list[Image], list[Rejected]]:
    """Leaves out captions without a word, and images that are left without a caption."""
    flags = iter(without_words([text for image in images for text in image.captions]))
    kept: list[Image] = []
    rejected = list(rejected)
    for image in images:
        captions = tuple(text for text in image.captions if not next(flags))
        dropped = len(image.captions) - len(captions)
        if captions:
            rejected += [Rejected(str(image.path), "empty caption")] * dropped
            kept.append(replace(image, captions=captions))
        else:
            rejected.append(Rejected(str(image.path), "no caption but empty ones"))
    return kept, rejected


def _order(images: Sequence[Image], seed: int) -> list[Image]:
    """Mixes the training images, so that sequential reads are mixed; the others stay."""

    def rank(image: Image) -> bytes:
        if image.split != "train":
            return b""
        return hashlib.sha256(f"{seed}\t{image.image_id}".encode()).digest()

    return sorted(images, key=rank)


def _training_captions(images: Sequence[Image]) -> list[str]:
    return [text for item in images if item.split == "train" for text in item.captions]


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
    text = "".join(f"{line}\n" for line in lines)
    # A folder's name need not be UTF-8.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Yields an empty folder inside `out`, on the same disk, while nobody else writes there."""
    found = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with sole_writer(out):
            remove_stale(out)
            with folder_aside(out / "prepare") as folder:
                yield folder
    finally:
        if not found:
            # After a mistake it is as empty as it was made.
            with suppress(OSError):
                out.rmdir()


def _publish(folder: Path, out: Path, manifest: Manifest) -> tuple[Path, ...]:
    """Replaces what `out` held; from its first step to its last the folder has no manifest."""
    earlier = written_shards(out) or set()
    discard(out, (shard.name for shard in folder.glob("*.tfrecord")))
    for name in earlier:
        (out / name).unlink(missing_ok=True)
    files = []
    for item in sorted(folder.iterdir()):
        with publish_file(out / item.name) as temporary:
            item.rename(temporary)
        files.append(out / item.name)
    manifest.save(out)
    return (*files, out / MANIFEST_FILE)
