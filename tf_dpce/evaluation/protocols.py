"""What is compared with what: the protocols by which results are published."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tf_dpce.config import ImageConfig
from tf_dpce.data.manifest import Manifest, SplitInfo
from tf_dpce.errors import UserError
from tf_dpce.evaluation.embed import Embedded
from tf_dpce.evaluation.encoding import SplitEncoder
from tf_dpce.evaluation.metrics import identity_metrics, mean_metrics, retrieval_metrics
from tf_dpce.evaluation.querybank import discounted
from tf_dpce.evaluation.tta import PLAIN, Views
from tf_dpce.evaluation.vocabulary_coverage import count_captions
from tf_dpce.models.dual_path import DualPath
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

# Images of a bank, with all their captions; more tell no more (docs/experiments.md).
BANK = 1_000


@dataclass(frozen=True)
class Protocol:
    """What of a split is compared with what.

    Attributes:
        measure: the metrics of vectors of images and sentences and their ids, in the manner of
            `retrieval_metrics`.
        images: how many the split has to hold, no more and no fewer; None takes any number.
        captions: how many of each image count, the first ones; None takes all.
        folds: into how many blocks the images are cut, in their order. Each is scored by itself,
            with its own captions, and every metric is the mean over them.
    """

    measure: Callable[..., dict[str, Any]]
    images: int | None = None
    captions: int | None = None
    folds: int = 1

    def score(self, images: Embedded, texts: Embedded, owners: np.ndarray) -> dict[str, Any]:
        """Scores a split.

        Args:
            images: N images, in their order.
            texts: M captions, image by image.
            owners: int `[M]`, the position of each caption's image. Instances cannot replace it:
                several images may show one person.

        Returns:
            What `measure` returns, and `captions`, the number of captions that counted.
        """
        if self.captions is not None:
            counted = np.arange(len(owners)) - np.searchsorted(owners, owners) < self.captions
            texts, owners = (
                Embedded(texts.vectors[counted], texts.instances[counted]),
                owners[counted],
            )
        borders = np.linspace(0, len(images.vectors), self.folds + 1).astype(int)
        results = []
        for start, stop in itertools.pairwise(borders):
            own = slice(*np.searchsorted(owners, [start, stop]))
            results.append(
                self.measure(
                    images.vectors[start:stop],
                    texts.vectors[own],
                    images.instances[start:stop],
                    texts.instances[own],
                )
            )
        return {**mean_metrics(results), "captions": len(owners)}


PROTOCOLS = {
    # As for Flickr8k and Flickr30k, and as the paper's MSCOCO 5K.
    "all": Protocol(retrieval_metrics),
    # As the paper's MSCOCO 1K.
    "coco1k": Protocol(retrieval_metrics, images=5_000, folds=5),
    # As MSCOCO 5K in Karpathy's split.
    "coco5k": Protocol(retrieval_metrics, images=5_000, captions=5),
    # A sentence looks for every image of a person.
    "cuhk_pedes": Protocol(identity_metrics),
}


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
    tokenizer: CaptionTokenizer,
    image: ImageConfig,
    folder: Path,
    split: str,
    protocol: str = "all",
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
    views: Views = PLAIN,
) -> dict[str, Any]:
    """Embeds one split of prepared data and scores it.

    Args:
        model: the model to score.
        tokenizer: the one that the model was trained with.
        image: the settings of images that it was trained with.
        folder: of the prepared data.
        split: "train", "val" or "test".
        protocol: a name in `PROTOCOLS`.
        batch_size: B, of images and of sentences.
        progress: called with (looks at images and sentences done, all of them) after each
            batch.
        views: how images and sentences are looked at, and the bank that hubs are told by.

    Returns:
        What `retrieval_metrics` or `identity_metrics` returns, averaged over the folds of the
        protocol; `images` and `captions`, how many were scored; and of all captions of the
        split, `vocabulary`, how much of them the model knows, as in `CaptionCounts.coverage`, and
        `cut_off`: the model's places, the captions that have more known words, and these words.

    Raises:
        UserError: an unknown protocol, a split that does not exist or is empty, one that has not
            what the protocol takes, or views that the model cannot take.
    """
    chosen = protocol_named(protocol)
    info = split_named(folder, split)
    counts = count_captions(folder, split, tokenizer)
    _check_takes(protocol, folder, split, counts.per_image)
    bank = _bank(folder, split, tokenizer, views)
    encoder = SplitEncoder(model, tokenizer, image, views, batch_size)
    own, lent = encoder.looks(info.images, info.captions), encoder.looks(*bank)

    def report(before: int) -> Callable[[int], None]:
        return lambda done: progress and progress(before + done, own + lent)

    images, texts = encoder.embed(folder, split, info.images, info.captions, report(0))
    if views.bank:
        lenders = encoder.embed(folder, views.bank, *bank, report(own), bank[0])
        images, texts = _discounted(images, texts, *lenders)
    return {
        **chosen.score(images, texts, counts.images),
        "images": info.images,
        "vocabulary": counts.coverage(),
        "cut_off": {
            "places": tokenizer.max_length,
            "captions": counts.cut,
            "words": counts.lost_words,
        },
    }


def _bank(folder: Path, split: str, tokenizer: CaptionTokenizer, views: Views) -> tuple[int, int]:
    """Returns how many images the bank of `views` has, the first of its split, and captions.

    Raises:
        UserError: it is the split that is scored, or one that does not exist or is empty.
    """
    if not views.bank:
        return 0, 0
    if views.bank == split:
        raise UserError(
            f"--bank {split} is the split that is scored, whose own queries nobody knows before "
            "they are put: give another one, such as train"
        )
    images = min(BANK, split_named(folder, views.bank).images)
    counts = count_captions(folder, views.bank, tokenizer, images)
    return images, int(counts.per_image.sum())


def _discounted(
    images: Embedded, texts: Embedded, bank_images: Embedded, bank_texts: Embedded
) -> tuple[Embedded, Embedded]:
    vectors = discounted(images.vectors, texts.vectors, bank_images.vectors, bank_texts.vectors)
    return Embedded(vectors[0], images.instances), Embedded(vectors[1], texts.instances)


def _check_takes(protocol: str, folder: Path, split: str, per_image: np.ndarray) -> None:
    """Makes sure that nothing of a split would be missing or left out unsaid.

    Raises:
        UserError: it has another number of images than the protocol takes, or too few captions.
    """
    takes, has = PROTOCOLS[protocol], len(per_image)
    if takes.images not in (None, has):
        raise UserError(
            f"{folder} holds {has:,} images in its split {split}, and {protocol} is defined on "
            f"exactly {takes.images:,}: prepare these, or use the protocol all"
        )
    short = int(np.sum(per_image < (takes.captions or 0)))
    if short:
        raise UserError(
            f"{short:,} of the {has:,} images of {folder}, split {split}, have fewer than the "
            f"{takes.captions} captions that {protocol} takes of each: use the protocol all"
        )
