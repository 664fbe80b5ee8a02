"""More than one look at an image or a sentence: the features of all are added (paper's test).

And what is known of each from a bank of other images and sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import tensorflow as tf

from tf_dpce.errors import UserError
from tf_dpce.evaluation.embed import Embedded, Encode, inference
from tf_dpce.models.dual_path import DualPath
from tf_dpce.models.fully_convolutional import convolutional_tower, resized_tower
from tf_dpce.models.fuse_batch_norm import folded
from tf_dpce.models.layers import UnitLength
from tf_dpce.models.trimming import trimming
from tf_dpce.preprocessing.tokenizer import all_shifts


@dataclass(frozen=True)
class Views:
    """How images and sentences are looked at. Features are added before they are scaled.

    Attributes:
        flip: images from both sides. Twice the work.
        sizes: sides of images in pixels, each another look; none is the trained one alone.
        whole: images uncut, their shorter side one of `sizes`, by a `convolutional_tower`.
        shifts: sentences at every place where they fit.
        float16: with weights that are kept in float16.
        bank: a split whose images and captions tell which items are hubs, so that they are
            discounted (see `hubs.discounted`); empty does without.
    """

    flip: bool = False
    sizes: tuple[int, ...] = ()
    whole: bool = False
    shifts: bool = False
    float16: bool = False
    bank: str = ""

    @property
    def options(self) -> str:
        """The options of the command line that ask for these views."""
        sizes = ("--sizes", *map(str, self.sizes)) if self.sizes else ()
        flags = ("flip", "whole", "shifts", "float16")
        bank = ("--bank", self.bank) if self.bank else ()
        return " ".join((*sizes, *(f"--{name}" for name in flags if getattr(self, name)), *bank))

    @property
    def name(self) -> str:
        """What tells these views apart in the name of a file; empty for the plain view."""
        return self.options.replace("--", "").replace(" ", "-")

    def were_taken(self, metrics: Mapping[str, Any]) -> bool:
        """Whether metrics were measured with these views; what a file leaves out is plain."""
        taken = {name: metrics.get(name, plain) for name, plain in asdict(PLAIN).items()}
        return Views(**{**taken, "sizes": tuple(taken["sizes"])}) == self


PLAIN = Views()


def image_views(tower: keras.Model, backbone: str, views: Views) -> dict[int, keras.Model]:
    """Returns, by size, models from pixels to features `[B, D]`, those of both sides added.

    Args:
        tower: a trained image tower.
        backbone: of the tower.
        views: the looks to take.

    Raises:
        UserError: the backbone does not fit these views, or the weights do not fit float16.
    """
    trained = tower.input_shape[1]
    sizes = views.sizes or (trained,)
    if views.whole:
        if min(sizes) < trained:
            raise UserError(
                f"whole images of {min(sizes)} pixels are too small for a backbone trained on "
                f"{trained}: give --sizes of {trained} or more"
            )
        towers = dict.fromkeys(sizes, convolutional_tower(tower, backbone))
    else:
        towers = {size: resized_tower(tower, backbone, size) for size in sizes}
    if views.float16:
        towers = {size: folded(tower, float16=True) for size, tower in towers.items()}
    return {size: _both_sides(t) if views.flip else t for size, t in towers.items()}


def seen(model: DualPath, backbone: str, views: Views) -> DualPath:
    """Returns a model that looks at images as one size of `views` has it: for serving.

    Args:
        model: the trained model. Its weights are shared, but for a backbone of another size, or all
            in float16.
        backbone: of its image tower.
        views: of one size at most; sentences keep their one place.

    Raises:
        UserError: the backbone does not fit this size, or the weights do not fit float16.
    """
    (image_tower,) = image_views(model.image_tower, backbone, views).values()
    text_tower = folded(model.text_tower, float16=True) if views.float16 else model.text_tower
    return DualPath.sharing(model, image_tower=image_tower, text_tower=text_tower)


def text_view(tower: keras.Model, views: Views, batch_size: int) -> Encode:
    """Returns the function from int32 ids `[B, T]` to features `[B, D]`.

    Args:
        tower: a trained text tower.
        views: whose `shifts` says whether the features of a sentence at all places where it fits
            are added.
        batch_size: most rows that the tower gets at a time, the shifted ones too.

    Raises:
        UserError: the weights do not fit float16.
    """
    encode = inference(folded(tower, views.float16), trimming(tower))

    def encode_all(ids: tf.Tensor) -> tf.Tensor:
        rows, owners = all_shifts(ids)
        starts = range(0, len(rows), batch_size)
        features = [encode(rows[start : start + batch_size]) for start in starts]
        return tf.math.segment_sum(tf.concat(features, 0), owners)

    return encode_all if views.shifts else encode


def added(looks: Sequence[Embedded], members: int = 1) -> Embedded:
    """Adds the features of several looks at the same items, and scales them to unit length."""
    features = sum(look.vectors for look in looks)
    return Embedded(UnitLength(members)(features).numpy(), looks[0].instances)


def _both_sides(tower: keras.Model) -> keras.Model:
    pixels = keras.Input(tower.input_shape[1:], name="image")
    mirrored = keras.ops.flip(pixels, axis=2)
    return keras.Model(pixels, tower(pixels) + tower(mirrored), name=tower.name)
