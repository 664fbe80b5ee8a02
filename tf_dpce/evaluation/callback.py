"""A Keras callback that computes retrieval metrics during `fit`."""

from __future__ import annotations

from typing import Any

import keras

from tf_dpce.data.pairs import PairSplit
from tf_dpce.evaluation.embed import Encoders
from tf_dpce.evaluation.metrics import metric_logs, retrieval_metrics
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer


class RetrievalEvaluation(keras.callbacks.Callback):
    """Adds the retrieval metrics of a split to the logs of each epoch.

    The logs get `val_i2t_r1`, `val_i2t_r5`, `val_i2t_r10`, `val_i2t_medr` and `val_i2t_meanr`
    (captions found with images), the same with `val_t2i` (images found with captions), and
    `val_rsum`, the sum of the six recalls, and `val_meanr`, the mean of both mean ranks.
    `EarlyStopping` and `ModelCheckpoint` can monitor them if they follow this callback in the list:
    `val_rsum` with `mode="max"`, or with fewer than 50 images, which leave many epochs with one
    rsum, `val_meanr` with `mode="min"`. `ModelCheckpoint` saves the first of equal epochs: with
    fewer than 20 images any of these stops at an early one by luck, so save the last epoch.

    Args:
        split: the images and captions, such as `load_pairs(...).val`; anything with its methods
            `image_batches` and `caption_batches` will do.
        tokenizer: the tokenizer that the model is trained with.
        image_size: S, the width and height of the model's images in pixels.

    Example:
        >>> pairs = tf_dpce.load_pairs("pairs.csv", images="images")
        >>> recalls = tf_dpce.RetrievalEvaluation(pairs.val, tokenizer, image_size=32)
        >>> recalls.set_model(model)  # as `fit(callbacks=[recalls])` does
        >>> recalls.on_epoch_end(0, logs := {})
        >>> 0 <= logs["val_rsum"] <= 600
        True
    """

    def __init__(self, split: PairSplit, tokenizer: CaptionTokenizer, image_size: int) -> None:
        super().__init__()
        self._images = split.image_batches(image_size)
        self._captions = split.caption_batches(tokenizer)
        self._encoders: Encoders | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the metrics to the logs, as Keras asks at the end of an epoch.

        Args:
            epoch: the number of the epoch, from 0.
            logs: the logs of the epoch, which get percent (recalls) and ranks from 1.

        Raises:
            UserError: an embedding is not finite.
        """
        if self._encoders is None:
            self._encoders = Encoders(self.model)
        images, texts = self._encoders.images(self._images), self._encoders.texts(self._captions)
        logs.update(metric_logs(retrieval_metrics(*images.compared_with(texts))))
