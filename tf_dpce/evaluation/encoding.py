"""Images and captions of prepared data as a model sees them, by all the looks of its views."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tf_dpce.config import ImageConfig
from tf_dpce.data.input_pipeline import ALL, evaluation_captions, evaluation_images
from tf_dpce.evaluation.embed import Embedded, compiled, embed
from tf_dpce.evaluation.tta import Views, added, image_views, text_view
from tf_dpce.models.dual_path import DualPath
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer


class SplitEncoder:
    """Embeds splits of prepared data.

    Args:
        model: the model.
        tokenizer: the one that the model was trained with.
        image: the settings of images that it was trained with.
        views: how images and sentences are looked at.
        batch_size: B, of images and of sentences.

    Raises:
        UserError: views that the model cannot take.
    """

    def __init__(
        self,
        model: DualPath,
        tokenizer: CaptionTokenizer,
        image: ImageConfig,
        views: Views,
        batch_size: int,
    ) -> None:
        self._tokenizer = tokenizer
        self._squash, self._whole = image.squash, views.whole
        self._width = model.image_tower.output_shape[-1]
        self._members, self._rows = model.members, batch_size
        eyes = image_views(model.image_tower, image.backbone, views)
        self._eyes = {size: compiled(eye) for size, eye in eyes.items()}
        self._read = text_view(model.text_tower, views, batch_size)

    def looks(self, images: int, captions: int) -> int:
        """Returns how many looks it takes at so many images and captions."""
        return len(self._eyes) * images + captions

    def embed(
        self,
        folder: Path,
        split: str,
        images: int,
        captions: int,
        report: Callable[[int], None],
        first: int = ALL,
    ) -> tuple[Embedded, Embedded]:
        """Returns the images and the captions of a split, in the order of the shards.

        Args:
            folder: of the prepared data.
            split: its name.
            images: N, how many there are.
            captions: M, how many these have.
            report: called with the looks done after each batch.
            first: how many images to take, where not all.

        Raises:
            UserError: there are more or fewer than the manifest says.
        """
        looks, rows = [], 1 if self._whole else self._rows
        for number, (size, eye) in enumerate(self._eyes.items()):
            pixels = evaluation_images(folder, split, size, rows, self._squash, self._whole, first)
            told = _after(report, number * images)
            looks.append(embed(eye, self._width, "image", pixels, images, told))
        ids = evaluation_captions(folder, split, self._tokenizer, self._rows, first)
        told = _after(report, len(self._eyes) * images)
        read = embed(self._read, self._width, "text", ids, captions, told)
        return added(looks, self._members), added([read], self._members)


def _after(report: Callable[[int], None], before: int) -> Callable[[int, int], None]:
    return lambda done, _: report(before + done)
