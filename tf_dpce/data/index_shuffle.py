"""Which images a training step takes and with which draws: a function of (seed, epoch, step).

Nothing is remembered between steps, so that a run can be resumed anywhere by starting the
counter of steps there.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from tf_dpce.preprocessing.augment import DRAWS

# Columns of the draws of a row: from `IMAGE` on those of crop and flip, then of other augmentation.
CAPTION, SHIFT, VIEW, IMAGE, AUGMENT = 0, 1, 2, 3, 8
# Rounds of the cipher that permutes. With the 4 of `tf.random.experimental.index_shuffle`, whose
# key has a constant part besides, positions and pairs of them are not equally likely.
_ROUNDS = 8


@dataclass(frozen=True)
class IndexShuffle:
    """The order of training.

    Attributes:
        seed: seed of the order and of every draw.
        images: N, the number of training images.
        batch_size: B; the images left over at the end of an epoch wait for the next one.
        part: number of the part of each batch's rows that this process takes.
        parts: number of parts, if several machines share a batch.
    """

    seed: int
    images: int
    batch_size: int
    part: int = 0
    parts: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch."""
        return self.images // self.batch_size

    @property
    def rows(self) -> int:
        """R, the rows of a batch that this process takes: all, unless machines share it."""
        return self.batch_size // self.parts

    def steps(self, start: int, stop: int) -> tf.data.Dataset:
        """Returns a dataset of (indices int64 `[R]`, draws float32 `[R, 14]`) of these steps.

        Indices are positions of images in the split; an epoch meets each at most once. Draws are
        uniform in 0..1.
        """
        return tf.data.Dataset.range(start, stop).map(self._step)

    def _step(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        epoch, step_of_epoch = step // self.steps_per_epoch, step % self.steps_per_epoch
        first = self.part * self.rows
        own = tf.range(first, first + self.rows, dtype=tf.int64)
        key = tf.random.experimental.stateless_fold_in([self.seed, 0], epoch)
        indices = permuted(step_of_epoch * self.batch_size + own, key, self.images)
        # Of two seeds, so that the first draws are those of runs from before there were others.
        draws = [
            tf.random.stateless_uniform(
                [self.batch_size, count],
                tf.random.experimental.stateless_fold_in([self.seed, kind], step),
            )
            for kind, count in ((1, AUGMENT), (2, DRAWS))
        ]
        return indices, tf.concat(draws, axis=1)[first : first + self.rows]


def permuted(positions: tf.Tensor, seed: tf.Tensor, count: int) -> tf.Tensor:
    """Returns the items at positions int64 `[K]` of a random order of 0 to `count` - 1.

    The order is a function of the seed (int64 `[2]`) and is written down nowhere, so that the work
    depends on K alone.
    """
    key = tf.random.stateless_uniform([3], seed, None, None, tf.uint32)
    last = tf.constant(count - 1, tf.int64)
    return tf.raw_ops.RandomIndexShuffle(index=positions, seed=key, max_index=last, rounds=_ROUNDS)


def pick(draws: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """Turns uniform draws in 0..1 into integers from 0 to `counts` - 1, of the same shape."""
    chosen = tf.cast(draws * tf.cast(counts, tf.float32), counts.dtype)
    # A draw close to 1 may round up to the count itself.
    return tf.minimum(chosen, counts - 1)
