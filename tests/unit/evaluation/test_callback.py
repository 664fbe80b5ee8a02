"""Recalls of validation pairs while a model is fitted with Keras."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_dpce
from tests.unit.export.tiny import CONFIG, SIZE, WORDS, tiny_model
from tf_dpce.evaluation import retrieval_metrics
from tf_dpce.losses import InstanceLoss, RankingLoss

IMAGES, CAPTIONS = 6, 12
DRAW = np.random.default_rng(0)
PIXELS = DRAW.uniform(0, 255, (IMAGES, SIZE, SIZE, 3)).astype(np.float32)
TOKENS = DRAW.integers(1, len(WORDS), (CAPTIONS, 6)).astype(np.int32)
OWNERS = np.repeat(np.arange(IMAGES), 2)


class Split:
    """Six images with two captions each."""

    def image_batches(self, image_size: int) -> tf.data.Dataset:
        assert image_size == SIZE
        rows = {"image": PIXELS, "instance": np.arange(IMAGES)}
        return tf.data.Dataset.from_tensor_slices(rows).batch(4)

    def caption_batches(self, tokenizer: str) -> tf.data.Dataset:
        assert tokenizer == "tokenizer"
        return tf.data.Dataset.from_tensor_slices({"text": TOKENS, "instance": OWNERS}).batch(5)


def test_an_epoch_logs_the_recalls_that_its_weights_have():
    model = tiny_model(config=CONFIG)
    losses = {"image_logits": InstanceLoss(), "text_logits": InstanceLoss(), "pair": RankingLoss()}
    model.compile(keras.optimizers.SGD(0.05), loss=losses)
    ids = OWNERS.astype(np.int64) % 5
    inputs = {"image": PIXELS[OWNERS], "text": TOKENS}
    batches = tf.data.Dataset.from_tensor_slices((inputs, dict.fromkeys(losses, ids))).batch(6)

    recalls = tf_dpce.RetrievalEvaluation(Split(), "tokenizer", image_size=SIZE)
    # A callback behind it reads what it logs.
    stop = keras.callbacks.EarlyStopping("val_rsum", mode="max", patience=9)
    history = model.fit(batches, epochs=2, shuffle=False, verbose=0, callbacks=[recalls, stop])

    logs = history.history
    assert stop.best == pytest.approx(max(logs["val_rsum"]))
    images, texts = (
        encoder(rows, training=False).numpy()
        for encoder, rows in ((model.image_encoder, PIXELS), (model.text_encoder, TOKENS))
    )
    metrics = retrieval_metrics(images, texts, np.arange(IMAGES), OWNERS)
    assert logs["val_rsum"][-1] == pytest.approx(metrics["rsum"])
    for short, direction in (("i2t", "image_to_text"), ("t2i", "text_to_image")):
        for name in ("r1", "r5", "r10", "medr", "meanr"):
            assert logs[f"val_{short}_{name}"][-1] == pytest.approx(metrics[direction][name])
    both = [metrics[direction]["meanr"] for direction in ("image_to_text", "text_to_image")]
    assert logs["val_meanr"][-1] == pytest.approx(np.mean(both))
