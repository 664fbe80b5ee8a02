"""A configuration -> the model, its text encoder and its losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path

import keras
import numpy as np

from tf_dpce.config import Config, LossConfig
from tf_dpce.errors import UserError
from tf_dpce.losses import ContrastiveLoss, InstanceLoss, RankingLoss
from tf_dpce.model import DualPath, RowClassifier
from tf_dpce.preprocessing.text import CaptionEncoder
from tf_dpce.preprocessing.vectors import look_up, open_vectors
from tf_dpce.towers import bag_of_words_tower, image_tower, recurrent_tower, text_tower
from tf_dpce.training.replicas import gather_rows


def build_model(config: Config, vocabulary_size: int, num_instances: int) -> DualPath:
    """Builds the model of a configuration, with the trunk's weights but random word vectors.

    Args:
        config: of the run.
        vocabulary_size: V, the number of words.
        num_instances: C, the number of training classes.

    Raises:
        UserError: an unknown backbone, or weights that do not fit it.
    """
    settings, classifier = config.model, None
    if settings.sampled_negatives:
        classifier = RowClassifier(num_instances, settings.shared_bias, name="instance_classifier")
    return DualPath(
        image_tower(
            config.image.backbone,
            None if config.weights == "none" else config.weights,
            config.image.input_size,
            config.model.output_dim,
            head_dim=config.image.head_dim,
            dropout=config.model.tower_dropout,
        ),
        text_tower_of(config, vocabulary_size),
        num_instances,
        dropout=settings.dropout,
        shared_bias=settings.shared_bias,
        rectify=settings.rectify,
        classifier=classifier,
    )


def text_tower_of(config: Config, vocabulary_size: int) -> keras.Model:
    """Builds the text tower of a configuration, with random word vectors."""
    text, width = config.text, config.model.output_dim
    common = (vocabulary_size, text.max_length, text.embedding_dim)
    dropouts = {"word_dropout": text.word_dropout, "dropout": config.model.tower_dropout}
    if text.tower == "convolutional":
        return text_tower(*common, text.blocks, width, widths=text.widths, **dropouts)
    tower = recurrent_tower if text.tower == "recurrent" else bag_of_words_tower
    return tower(*common, text.widths, width, **dropouts)


def load_vectors(
    model: DualPath,
    path: Path,
    words: Sequence[str],
    lowercase: bool,
    say: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Puts word vectors from a file in place of random ones; returns for which words.

    Args:
        model: whose words they are.
        path: file of word vectors.
        words: the vocabulary.
        lowercase: whether it is lower-cased: see `look_up`.
        say: called with a line where the file may be cut short.

    Raises:
        UserError: the file cannot be read, its vectors have another width, or it knows no word.
    """
    embedding, file = model.text_tower.get_layer("text_embedding"), open_vectors(path)
    if file.width != embedding.output_dim:
        raise UserError(
            f"{path} holds vectors of {file.width} numbers, the model's words have "
            f"{embedding.output_dim}: set --text.embedding_dim {file.width}, or give another file"
        )
    rows, found = look_up(file, words, lowercase)
    if file.doubt:
        say(f"warning: {file.doubt}")
    if not found.any():
        raise UserError(f"{path} has no vector for any word of the vocabulary: give another file")
    embedding.embeddings.assign(np.where(found[:, None], rows, embedding.embeddings.numpy()))
    return list(compress(words, found))


def caption_encoder(config: Config, words: Sequence[str], lowercase: bool) -> CaptionEncoder:
    """Returns the encoder of sentences that belongs to a model."""
    return CaptionEncoder(words, config.text.max_length, lowercase)


def stage_losses(loss: LossConfig) -> tuple[dict[str, keras.losses.Loss], dict[str, float]]:
    """Returns the losses of `DualPath`'s outputs and their weights, those of weight 0 left out."""
    pair = (
        ContrastiveLoss(loss.temperature, gather_rows)
        if loss.pair_loss == "contrastive"
        else RankingLoss(loss.margin, "given" if loss.lends_negatives else "batch", gather_rows)
    )
    table = {
        "image_logits": (InstanceLoss(), loss.image_instance),
        "text_logits": (InstanceLoss(), loss.text_instance),
        "pair": (pair, loss.pair),
    }
    used = {name: entry for name, entry in table.items() if entry[1]}
    return {k: v[0] for k, v in used.items()}, {k: v[1] for k, v in used.items()}
