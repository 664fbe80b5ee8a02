"""The embeddings of a teacher, looked up for the images and captions of each training step."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_dpce.data.caption_table import CaptionTable, captions_of_images, captions_of_instances
from tf_dpce.data.feature_cache import new_map
from tf_dpce.data.index_shuffle import CAPTION, IndexShuffle
from tf_dpce.data.input_pipeline import Batches, caption_groups
from tf_dpce.data.manifest import Manifest
from tf_dpce.data.teacher_files import check_widths, read_teacher
from tf_dpce.errors import UserError, shorten
from tf_dpce.files import publish_file, remove_stale, sha256_lines

_BATCH = 1024


@dataclass(frozen=True)
class Teacher:
    """A teacher's embeddings of the training split, mapped from disk.

    What a teacher lacks is represented by the other modality of the same pair: of one that knows
    images alone, a caption has the embedding of its image.

    Attributes:
        embeddings: float16 `[N + M, T]`, of unit length: of the images in the order of the split,
            then of the captions, image by image. Those of a modality that it lacks are zeros.
        rows: the captions of the split; in place of its ids each has its row, `[M]`.
    """

    embeddings: np.ndarray
    rows: CaptionTable

    def batches(self, order: IndexShuffle, start: int, stop: int, of_instances: bool) -> Batches:
        """Returns what belongs to the batches of training steps `start` to `stop` - 1.

        Images and captions are functions of the step alone, so that they are those of the batches
        of the same order, of whatever pipeline.

        Args:
            order: the order of training.
            start: first step.
            stop: the step after the last.
            of_instances: whether captions are drawn from all of an instance.

        Returns:
            Float32 `[R, 2, T]`, image first.
        """
        drawn = captions_of_instances if of_instances else captions_of_images
        draw, instances = drawn(self.rows), tf.constant(self.rows.instances)

        def rows(indices: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
            owners = tf.gather(instances, indices) if of_instances else indices
            places = [indices, draw(owners, draws[:, CAPTION])]
            pairs = tf.numpy_function(self._take, places, tf.float32)
            return tf.ensure_shape(pairs, [order.rows, 2, self.embeddings.shape[1]])

        return order.steps(start, stop).map(rows, num_parallel_calls=2).prefetch(4)

    def _take(self, images: np.ndarray, captions: np.ndarray) -> np.ndarray:
        first = len(self.rows.instances)
        parts = ((self.embeddings[:first], images), (self.embeddings[first:], captions))
        known = [vectors[rows] for vectors, rows in parts if vectors[0].any()]
        return np.stack([known[0], known[-1]], axis=1).astype(np.float32)


def load_teacher(path: Path, data: Path, digest: str) -> Teacher:
    """Finds a teacher's embeddings of the training images and captions.

    They are brought to unit length and into the order of the split, in a file that is left in
    `DATA/features/`, from which any later training maps them. No more than some thousand of them
    are in memory at a time.

    Args:
        path: Parquet, `.npz` or a folder of `embed`.
        data: folder of prepared data.
        digest: SHA-256 of the embeddings.

    Raises:
        UserError: the embeddings cannot be read, are not of this data, have two widths, or are not
            finite.
    """
    shards = Manifest.load(data).splits["train"].shards
    name = sha256_lines([digest, *(shard.sha256 for shard in shards)])[:16]
    file, (ids, rows) = data / "features" / f"teacher-{name}.npy", _training_ids(data)
    with suppress(FileNotFoundError, EOFError, ValueError):  # none, or one that was cut short
        return Teacher(np.load(file, mmap_mode="r"), rows)
    remove_stale(file.parent)
    with publish_file(file) as temporary:
        counts = _write(temporary, path, ids)
        _check_counts(path, ids, counts, images=len(rows.instances))
    return Teacher(np.load(file, mmap_mode="r"), rows)


def _training_ids(data: Path) -> tuple[np.ndarray, CaptionTable]:
    """Returns the ids of the training images and then of their captions, and the rows of these."""
    images, captions, counts, instances = [], [], [], []
    for batch in caption_groups(data, "train", _BATCH):
        names, lengths = batch["image_id"].numpy(), batch["captions"].row_lengths().numpy()
        numbered = zip(names, lengths, strict=True)
        images.append(names.astype(np.bytes_))
        captions.append(np.array([b"%b#%d" % (name, k) for name, n in numbered for k in range(n)]))
        counts.append(lengths)
        instances.append(batch["instance"].numpy())
    first = np.cumsum(np.concatenate([[0], *counts]))
    rows = CaptionTable(np.arange(first[-1]), first, np.concatenate(instances))
    return np.concatenate(images + captions), rows


def _write(file: Path, path: Path, ids: np.ndarray) -> np.ndarray:
    """Writes a teacher's embeddings in the order of ids; returns how many each id has."""
    order, target = np.argsort(ids), None
    ascending, counts = ids[order], np.zeros(len(ids), np.int64)
    for given, vectors in read_teacher(path):
        if target is None:
            target = new_map(file, (len(ids), vectors.shape[1]))
        check_widths(path, {target.shape[1], vectors.shape[1]})
        nearest = np.minimum(np.searchsorted(ascending, given), len(ids) - 1)
        known = ascending[nearest] == given
        places = order[nearest[known]]
        np.add.at(counts, places, 1)
        lengths = np.linalg.norm(vectors[known], axis=1, keepdims=True)
        usable = np.isfinite(lengths) & (lengths > 0)
        if not usable.all():
            message = f"the embedding of {_shown(ids[places], ~usable[:, 0])} is not finite, or 0"
            raise UserError("teacher.not_finite", f"{path}: {message}: embed it again", path)
        target[places] = vectors[known] / lengths
    return counts


def _check_counts(path: Path, ids: np.ndarray, counts: np.ndarray, images: int) -> None:
    """Refuses ids of other data, a part of the images or of the captions, and ids given twice."""
    for kind, part in (("images", slice(images)), ("captions", slice(images, None))):
        missing = counts[part] == 0
        if missing.any() and (not missing.all() or not counts.any()):
            first = _shown(ids[part], missing)
            message = f"{missing.sum():,} of {len(missing):,} training {kind}, the first is {first}"
            message = f"{path} has no embedding of {message}: embed all of them, by these ids"
            raise UserError("teacher.ids", message, path)
    if (counts > 1).any():
        message = f"{path} has the id {_shown(ids, counts > 1)} more than once: write it once"
        raise UserError("teacher.repeated", message, path)


def _shown(ids: np.ndarray, chosen: np.ndarray) -> str:
    """Returns the first of the chosen ids, fit for a message."""
    return shorten(ids[chosen.argmax()].decode("utf-8", "replace"))
