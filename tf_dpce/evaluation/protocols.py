"""What is compared with what: the protocols by which results are published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tf_dpce.data.manifest import Manifest, SplitInfo
from tf_dpce.data.pipeline import evaluation_captions, evaluation_images
from tf_dpce.errors import UserError
from tf_dpce.evaluation.embed import Embedded, embed_images, embed_texts
from tf_dpce.evaluation.metrics import retrieval_metrics
from tf_dpce.model import DualPath
from tf_dpce.preprocessing.text import CaptionEncoder

# The metrics of one protocol, given all pictures and all sentences of a split.
Protocol = Callable[[Embedded, Embedded], dict[str, Any]]


def all_pairs(images: Embedded, texts: Embedded) -> dict[str, Any]:
    """Compares every picture with every sentence of the split, as for Flickr8k and Flickr30k."""
    return retrieval_metrics(images.vectors, texts.vectors, images.instances, texts.instances)


PROTOCOLS: dict[str, Protocol] = {"all": all_pairs}


def protocol_named(name: str) -> Protocol:
    """Returns a protocol.

    Raises:
        UserError: there is no protocol of that name.
    """
    if name not in PROTOCOLS:
        raise UserError(f"unknown protocol {name}: one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def split_named(folder: Path, name: str) -> SplitInfo:
    """Returns the counts of one split of prepared data.

    Raises:
        UserError: the split does not exist or is empty.
    """
    splits = Manifest.load(folder).splits
    if name not in splits:
        raise UserError(f"{folder} has no split {name}: one of {', '.join(splits)}")
    if not splits[name].captions:
        raise UserError(f"{folder} holds no captions in its split {name}")
    return splits[name]


def evaluate_split(
    model: DualPath,
    caption_encoder: CaptionEncoder,
    folder: Path,
    split: str,
    protocol: str = "all",
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
    flip: bool = False,
) -> dict[str, Any]:
    """Embeds one split of prepared data and scores it.

    Args:
        model: the model to score.
        caption_encoder: the one that the model was trained with.
        folder: of the prepared data.
        split: "train", "val" or "test".
        protocol: a name in `PROTOCOLS`.
        batch_size: B, of pictures and of sentences.
        progress: called with (pictures and sentences done, all of them) after each batch.
        flip: whether pictures are seen from both sides, as in `embed_images`.

    Returns:
        What `retrieval_metrics` returns.

    Raises:
        UserError: an unknown protocol, or a split that does not exist or is empty.
    """
    score = protocol_named(protocol)
    info = split_named(folder, split)
    total = info.pictures + info.captions
    image_size = model.image_encoder.input_shape[1]

    def report(before: int) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, _: progress(before + done, total)

    pixels = evaluation_images(folder, split, image_size, batch_size)
    images = embed_images(model, pixels, info.pictures, report(0), flip)
    ids = evaluation_captions(folder, split, caption_encoder, batch_size)
    texts = embed_texts(model, ids, info.captions, report(info.pictures))
    return score(images, texts)
