"""Builds the model of a configuration. Pure Keras."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from tf_dpce.config import Config
from tf_dpce.models.baseline_towers import bag_of_words_tower, recurrent_tower
from tf_dpce.models.dual_path import DualPath, RowClassifier
from tf_dpce.models.image_tower import image_tower
from tf_dpce.models.text_tower import small_text_tower, text_tower


def build_model(config: Config, vocabulary_size: int, num_instances: int) -> DualPath:
    """Builds the model of a configuration, with the backbone's weights and random word vectors.

    Args:
        config: configuration of the run. Layers compute in its `precision`; weights are float32.
        vocabulary_size: V, the number of words.
        num_instances: C, the number of training classes.

    Raises:
        UserError: the backbone is unknown, or the weights do not fit it.
    """
    settings, classifier = config.model, None
    half = config.precision == "bfloat16"
    with dtype_policy("mixed_bfloat16" if half else keras.config.dtype_policy()):
        if settings.sampled_negatives:
            classifier = RowClassifier(
                num_instances, settings.classifier_bias == "shared", name="instance_classifier"
            )
        return DualPath(
            image_tower(
                config.image.backbone,
                None if config.weights == "none" else config.weights,
                config.image.input_size,
                settings.output_dim,
                head_dim=config.image.head_dim,
                dropout=settings.tower_dropout,
            ),
            text_tower_of(config, vocabulary_size),
            num_instances,
            dropout=settings.dropout,
            classifier_bias=settings.classifier_bias,
            relu_before_losses=settings.relu_before_losses,
            classifier=classifier,
        )


def text_tower_of(config: Config, vocabulary_size: int) -> keras.Model:
    """Builds the text tower of a configuration, with random word vectors."""
    text = config.text
    common = {
        "vocabulary_size": vocabulary_size,
        "max_length": text.max_length,
        "word_dim": text.word_dim,
        "output_dim": config.model.output_dim,
        "word_dropout": text.word_dropout,
        "dropout": config.model.tower_dropout,
    }
    if text.tower == "convolutional":
        return text_tower(blocks=text.blocks, widths=text.widths, **common)
    if text.tower == "small":
        return small_text_tower(widths=text.widths, **common)
    tower = recurrent_tower if text.tower == "recurrent" else bag_of_words_tower
    return tower(hidden_dims=text.widths, **common)


@contextmanager
def dtype_policy(policy: str | keras.DTypePolicy) -> Iterator[None]:
    """Gives layers that are made in the block a policy."""
    # Layers take the policy of the process when they are made. It is put back, so that a run that
    # is loaded later, or a model of the caller's own, computes in float32.
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
