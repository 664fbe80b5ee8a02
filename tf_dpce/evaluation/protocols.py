"""Protocols: which images and captions of a split are compared when results are published."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_dpce.config import ImageConfig
from tf_dpce.data.manifest import Manifest, SplitInfo
from tf_dpce.errors import UserError
from tf_dpce.evaluation.calibration_fit import check_enough
from tf_dpce.evaluation.metrics import identity_metrics, retrieval_metrics
from tf_dpce.evaluation.tta import PLAIN, TestTimeAugmentation

if TYPE_CHECKING:
    from tf_dpce.evaluation.embed import Embeddings
    from tf_dpce.models.dual_path import DualPath
    from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

CALIBRATION_SPLIT = "val"
# Images of a querybank, with all their captions; more bring no more (docs/experiments.md).
QUERYBANK_IMAGES = 1_000


@dataclass(frozen=True)
class Protocol:
    """Which images and captions of a split are compared, and how they are scored.

    Attributes:
        measure: function with the arguments and results of `retrieval_metrics`.
        images: number of images that the split must have; None takes any number.
        captions: number of captions of each image that count, the first ones; None takes all.
        folds: number of blocks into which the images are cut, in their order. Each block is scored
            with its own captions, and every metric is the mean over the blocks.
    """

    measure: Callable[..., dict[str, Any]]
    images: int | None = None
    captions: int | None = None
    folds: int = 1

    def score(self, images: Embeddings, texts: Embeddings, owners: np.ndarray) -> dict[str, Any]:
        """Scores a split.

        Args:
            images: embeddings of N images, in their order.
            texts: embeddings of M captions, image by image.
            owners: int `[M]`, the index of each caption's image. Instances cannot replace it,
                because several images may show one person.

        Returns:
            What `measure` returns, and `captions`, the number of captions that counted.
        """
        import keras

        results, counted = [], 0
        for block, own in self.blocks(owners, len(images.vectors)):
            counted += len(own)
            results.append(self.measure(*images.rows(block).compared_with(texts.rows(own))))
        # A protocol leaves the same directions out in every fold.
        mean = keras.tree.map_structure(
            lambda *values: None if values[0] is None else float(np.mean(values)), *results
        )
        return {**mean, "captions": counted}

    def blocks(self, owners: np.ndarray, images: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the rows of the images, and of their captions, that are compared with each other.

        Args:
            owners: int `[M]`, the index of each caption's image, rising.
            images: N, the number of images.
        """
        counted = np.arange(len(owners))
        if self.captions is not None:
            counted = counted[counted - np.searchsorted(owners, owners) < self.captions]
        borders = np.linspace(0, images, self.folds + 1).astype(int)
        for start, stop in itertools.pairwise(borders):
            own = slice(*np.searchsorted(owners[counted], [start, stop]))
            yield np.arange(start, stop), counted[own]


PROTOCOLS = {
    # As for Flickr8k and Flickr30k, and as the paper's MSCOCO 5K.
    "all": Protocol(retrieval_metrics),
    # As the paper's MSCOCO 1K.
    "coco1k": Protocol(retrieval_metrics, images=5_000, folds=5),
    # As MSCOCO 5K in Karpathy's split.
    "coco5k": Protocol(retrieval_metrics, images=5_000, captions=5),
    # A caption is the query for every image of a person.
    "cuhk_pedes": Protocol(identity_metrics),
}


def protocol_named(name: str) -> Protocol:
    """Returns a protocol.

    Raises:
        UserError: there is no protocol of that name.
    """
    if name not in PROTOCOLS:
        names = ", ".join(PROTOCOLS)
        raise UserError("evaluation.protocol", f"unknown protocol {name}: give one of {names}")
    return PROTOCOLS[name]


def split_named(folder: Path, name: str) -> SplitInfo:
    """Returns the counts of one split of prepared data.

    Raises:
        UserError: the split does not exist or is empty.
    """
    splits = Manifest.load(folder).splits
    if name not in splits or not splits[name].captions:
        have = ", ".join(split for split, info in splits.items() if info.captions)
        raise UserError(
            "evaluation.split", f"{folder} has no captions of a split {name}, only {have}", folder
        )
    return splits[name]


def check_evaluation(
    folder: Path, split: str, protocol: str = "all", querybank: str = "", calibration: bool = False
) -> SplitInfo:
    """Finds, without TensorFlow, what `evaluate_split` would refuse before it counts captions.

    Returns:
        The counts of the split.

    Raises:
        UserError: an unknown protocol; a split that does not exist, is empty or has not the size
            that the protocol takes; a querybank that is none; or a split that is calibrated on.
    """
    takes, info = protocol_named(protocol), split_named(folder, split)
    if takes.images not in (None, info.images):
        raise UserError(
            "evaluation.protocol_images",
            f"{folder} holds {info.images:,} images in its split {split}, but {protocol} is "
            f"defined on exactly {takes.images:,}: prepare these, or use the protocol all",
            folder,
        )
    if querybank == split:
        raise UserError(
            "evaluation.querybank",
            f"the split {split} is the one that is scored, and its queries are not known before "
            "they are asked: give another querybank, such as train",
        )
    if calibration and split == CALIBRATION_SPLIT:
        message = f"probabilities are calibrated on the split {split}: measure them on another"
        raise UserError("evaluation.calibration", message)
    if querybank:
        split_named(folder, querybank)
    if calibration:
        check_enough(split_named(folder, CALIBRATION_SPLIT).images)
    return info


def evaluate_split(
    model: DualPath,
    tokenizer: CaptionTokenizer,
    image: ImageConfig,
    folder: Path,
    split: str,
    protocol: str = "all",
    batch_size: int = 64,
    augmentation: TestTimeAugmentation = PLAIN,
) -> dict[str, Any]:
    """Embeds one split of prepared data and scores it.

    Args:
        model: the model to score.
        tokenizer: the one that the model was trained with.
        image: the image settings that the model was trained with.
        folder: prepared data.
        split: "train", "val" or "test".
        protocol: a name in `PROTOCOLS`.
        batch_size: number of images, or of captions, in a batch.
        augmentation: flip, sizes and precision, and the split of the querybank.

    Returns:
        What `retrieval_metrics` or `identity_metrics` returns, averaged over the folds of the
        protocol; `images` and `captions`, the numbers that were scored; `unit`, what captions are
        counted in: words, pieces of words or characters; `vocabulary`, how much of the captions the
        model knows, as in `CaptionCounts.coverage`; and `cut_off`: the token positions of the
        model, the captions that have more known words, and the number of words beyond.

    Raises:
        UserError: an unknown protocol; a split that does not exist, is empty or has not what the
            protocol takes; or an augmentation that the model cannot use.
    """
    check_evaluation(folder, split, protocol, augmentation.querybank)

    from tf_dpce.evaluation.embed import SplitEncoder
    from tf_dpce.evaluation.embedded_split import embed_split, score_split

    encoder = SplitEncoder(model, tokenizer, image, augmentation, batch_size)
    return score_split(embed_split(encoder, folder, split, protocol), protocol)
