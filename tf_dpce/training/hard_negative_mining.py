"""Hard text negatives: the nearest wrong captions of a few hundred (the authors' code)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tf_dpce.data.index_shuffle import pick
from tf_dpce.models.dual_path import DualPath
from tf_dpce.preprocessing.tokenizer import position_shift
from tf_dpce.training.caption_table import CaptionTable

# `Order` uses 0 and 1 of the same seed.
_STREAM = 2


class Candidates:
    """Captions drawn anew for each step, with replacement: a function of (seed, step).

    Every replica draws the same ones, so that what is mined does not depend on their number.

    Args:
        captions: of the training split.
        count: C, captions a step.
        shift: whether they are moved to random places.
        seed: of the draws.
    """

    def __init__(self, captions: CaptionTable, count: int, shift: bool, seed: int) -> None:
        self.count = count
        self.shift = shift
        self.seed = seed
        self._ids = tf.constant(captions.ids)
        self._first = tf.constant(captions.first)
        self._instances = tf.constant(captions.instances)

    def __call__(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns int32 ids `[C, T]` and int64 instances `[C]` of the captions of a step."""
        key = tf.random.experimental.stateless_fold_in([self.seed, _STREAM], step)
        draws = tf.random.stateless_uniform([3, self.count], key)
        images = tf.size(self._instances, tf.int64)
        rows = pick(draws[0], tf.fill([self.count], images))
        first = tf.gather(self._first, rows)
        chosen = first + pick(draws[1], tf.gather(self._first, rows + 1) - first)
        ids = tf.gather(self._ids, chosen)
        ids = position_shift(ids, draws[2]) if self.shift else ids
        return ids, tf.gather(self._instances, rows)


class MinedDualPath(DualPath):
    """`DualPath` whose `fit` replaces the captions that are lent as negatives by mined ones.

    Of a batch, rows `2k` are anchors and rows `2k + 1` lend them an image and a caption. That
    caption becomes the candidate nearest to the anchor's image by the model in test mode; it
    keeps the label of its own image in the instance loss. Candidates of an instance that is
    anywhere in the batch are passed over, as in the authors' code for Flickr30k; where that leaves
    none, the captions that the batch lends stay.
    """

    candidates: Candidates

    @classmethod
    def over(cls, network: DualPath, candidates: Candidates) -> MinedDualPath:
        """Returns a network with all weights of another one."""
        mined = cls.sharing(network)
        mined.candidates = candidates
        return mined

    def train_step(self, data: tuple[dict, dict]) -> dict[str, Any]:
        return super().train_step(self.with_mined_texts(*data))

    def with_mined_texts(self, inputs: dict, targets: dict) -> tuple[dict, dict]:
        """Returns a batch whose lent captions, and their labels, are mined ones."""
        ids = targets["pair"][:, 0]
        lent = (inputs["text"][1::2], ids[1::2])
        texts, instances = self._mine(inputs["image"][0::2], ids, lent)
        inputs = {**inputs, "text": _interleave(inputs["text"][0::2], texts)}
        if "text_logits" in targets:
            targets = {**targets, "text_logits": _interleave(ids[0::2], instances)}
        return inputs, targets

    def _mine(
        self, anchors: tf.Tensor, batch_ids: tf.Tensor, lent: tuple[tf.Tensor, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns ids `[A, T]` and instances `[A]` of the nearest wrong caption of each anchor.

        They are those of `lent` where no candidate is of an instance outside the batch.
        """
        texts, instances = self.candidates(tf.cast(self.optimizer.iterations, tf.int64))
        all_ids = tf.distribute.get_replica_context().all_gather(batch_ids, axis=0)
        banned = tf.reduce_any(instances[tf.newaxis, :] == all_ids[:, tf.newaxis], axis=0)
        images = self._compared(self.image_tower, anchors)
        scores = ops.matmul(images, ops.transpose(self._compared(self.text_tower, texts)))
        nearest = tf.argmax(tf.where(banned[tf.newaxis, :], -2.0, scores), axis=1)
        mined = (tf.gather(texts, nearest), tf.gather(instances, nearest))
        none = tf.reduce_all(banned)
        return tf.where(none, lent[0], mined[0]), tf.where(none, lent[1], mined[1])

    def _compared(self, tower: keras.Model, inputs: tf.Tensor) -> tf.Tensor:
        """Returns what the ranking loss compares, in test mode and without a gradient."""
        feature = tf.cast(tf.stop_gradient(tower(inputs, training=False)), tf.float32)
        return self.get_layer("unit_length")(ops.relu(feature) if self.rectify else feature)


def _interleave(even: tf.Tensor, odd: tf.Tensor) -> tf.Tensor:
    """Returns rows of two tensors `[A, ...]` in turn, `[2A, ...]`."""
    return tf.reshape(tf.stack([even, odd], axis=1), [-1, *even.shape[1:]])
