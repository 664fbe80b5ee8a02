"""The files that TensorBoard's projector reads: points, their labels and their thumbnails.

They are written here, because Keras's own callback leaves the projector empty
(github.com/keras-team/keras/issues/20210).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from tf_dpce.drawing.hit_rows import framed, sprite
from tf_dpce.files import publish_bytes, publish_file
from tf_dpce.monitoring.validation_items import ValidationItems

CONFIG_FILE = "projector_config.pbtxt"  # the name that TensorBoard reads
TENSORS_FILE, LABELS_FILE, SPRITE_FILE = "tensors.tsv", "metadata.tsv", "sprite.jpg"

_PAIRS = 500
_SIDE = 48  # of a thumbnail, in pixels
_CAPTION_FRAME = "#1c7ed6"


@dataclass(frozen=True)
class Points:
    """Validation images, each with one of its captions.

    Attributes:
        images: int64 `[P]`, numbers of images.
        captions: int64 `[P]`, the number of a caption of each.
    """

    images: np.ndarray
    captions: np.ndarray


def choose_points(items: ValidationItems, seed: int) -> Points:
    """Chooses at most 500 images, and a caption of each, by a seed."""
    draws = np.random.default_rng(seed)
    order = draws.permutation(len(items.captions))
    # The first caption of each image in a random order of all.
    _, first = np.unique(items.image_of[order], return_index=True)
    chosen = np.sort(draws.permutation(len(first))[:_PAIRS])
    return Points(chosen, order[first[chosen]])


class Projector:
    """Writes the projector's files into the folder of a TensorBoard run.

    Args:
        folder: the folder.
        items: the validation images and captions.
        points: which of them are shown.
    """

    def __init__(self, folder: Path, items: ValidationItems, points: Points) -> None:
        self.folder = folder
        self._items = items
        self._points = points
        self._has_labels = False

    def write(self, images: np.ndarray, texts: np.ndarray) -> None:
        """Writes the embeddings of all validation images `[N, D]` and captions `[M, D]`.

        Only those that are shown are written; labels and thumbnails once.

        Raises:
            OSError: a file cannot be written; the former one stays.
        """
        rows = np.concatenate([images[self._points.images], texts[self._points.captions]])
        if not self._has_labels:
            self._write_labels()
            self._write_sprite()
            self._has_labels = True
        with publish_file(self.folder / TENSORS_FILE) as temporary, temporary.open("w") as stream:
            stream.writelines("\t".join(map("%.5g".__mod__, row)) + "\n" for row in rows.tolist())
        # It comes last: it names the others.
        config = text_format.MessageToString(_config(rows.shape))
        publish_bytes(self.folder / CONFIG_FILE, config.encode())

    def _write_labels(self) -> None:
        items, lines = self._items, [("modality", "caption", "image")]
        pairs = list(zip(self._points.images.tolist(), self._points.captions.tolist(), strict=True))
        for modality in ("image", "caption"):
            lines += [(modality, items.captions[c], items.names[i]) for i, c in pairs]
        publish_bytes(self.folder / LABELS_FILE, "".join(map(_line, lines)).encode())

    def _write_sprite(self) -> None:
        numbers = self._points.images.tolist()
        self._items.load(numbers)
        images = [self._items.thumbnail(number) for number in numbers]
        captions = [framed(image, _CAPTION_FRAME, width=10) for image in images]
        with publish_file(self.folder / SPRITE_FILE) as temporary:
            sprite([*images, *captions], _SIDE).save(temporary, format="JPEG", quality=85)


def _line(cells: Sequence[str]) -> str:
    return "\t".join(" ".join(cell.split()) for cell in cells) + "\n"


def _config(shape: tuple[int, ...]) -> ProjectorConfig:
    config = ProjectorConfig()
    embedding = config.embeddings.add(
        tensor_name="validation images and captions",
        tensor_path=TENSORS_FILE,
        tensor_shape=shape,
        metadata_path=LABELS_FILE,
    )
    embedding.sprite.image_path = SPRITE_FILE
    embedding.sprite.single_image_dim.extend([_SIDE, _SIDE])
    return config
