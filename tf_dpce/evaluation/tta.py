"""Test-time augmentation: the features of several views of an image are added (paper's test)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

    from tf_dpce.models.dual_path import DualPath


@dataclass(frozen=True)
class TestTimeAugmentation:
    """How a trained model is used when it is evaluated or exported.

    Attributes:
        flip: whether each image is also seen mirrored. It doubles the work.
        sizes: sides in pixels at which images are seen; an empty tuple stands for the trained one.
        float16: whether weights are stored in float16.
        querybank: the split whose images and captions are the querybank of
            `evaluation.querybank`; an empty string stands for no normalisation.

    Example:
        >>> TestTimeAugmentation(flip=True, sizes=(224, 288)).options
        '--sizes 224 288 --flip'
    """

    flip: bool = False
    sizes: tuple[int, ...] = ()
    float16: bool = False
    querybank: str = ""

    @property
    def options(self) -> str:
        """The options of `evaluate` that ask for it."""
        sizes = ("--sizes", *map(str, self.sizes)) if self.sizes else ()
        flags = [f"--{name}" for name in ("flip", "float16") if getattr(self, name)]
        querybank = ("--querybank", self.querybank) if self.querybank else ()
        return " ".join((*sizes, *flags, *querybank))

    @property
    def name(self) -> str:
        """The part of a file's name that stands for it; empty if nothing is augmented."""
        return self.options.replace("--", "").replace(" ", "-")

    def was_used(self, metrics: Mapping[str, Any]) -> bool:
        """Returns whether a metrics file was measured with it; absent keys are defaults."""
        used = {name: metrics.get(name, default) for name, default in asdict(PLAIN).items()}
        return TestTimeAugmentation(**{**used, "sizes": tuple(used["sizes"])}) == self


PLAIN = TestTimeAugmentation()


def image_towers(
    tower: keras.Model, backbone: str, augmentation: TestTimeAugmentation
) -> dict[int, keras.Model]:
    """Returns a tower for each size of an augmentation.

    Args:
        tower: a trained image tower.
        backbone: name of its backbone.
        augmentation: sizes, flip and precision.

    Returns:
        By size S, models from float32 RGB `[B, S, S, 3]` to features `[B, D]`; with `flip` the
        sum of the features of the image and its mirror image.

    Raises:
        UserError: the backbone has only one size, or a weight does not fit float16.
    """
    from tf_dpce.models.fuse_batch_norm import folded
    from tf_dpce.models.image_tower import resized_tower

    towers = {}
    for size in augmentation.sizes or (tower.input_shape[1],):
        towers[size] = resized_tower(tower, backbone, size)
        if augmentation.float16:
            towers[size] = folded(towers[size], float16=True)
        if augmentation.flip:
            towers[size] = _with_mirror_image(towers[size])
    return towers


def augmented_model(model: DualPath, backbone: str, augmentation: TestTimeAugmentation) -> DualPath:
    """Returns a model to export that augments its images.

    Args:
        model: a trained model. The result shares its weights, except those of a backbone of
            another size and those stored in float16.
        backbone: name of the backbone of its image tower.
        augmentation: at most one size.

    Raises:
        UserError: the backbone has only one size, or a weight does not fit float16.
    """
    from tf_dpce.models.dual_path import DualPath
    from tf_dpce.models.fuse_batch_norm import folded

    (image_tower,) = image_towers(model.image_tower, backbone, augmentation).values()
    text_tower = model.text_tower
    if augmentation.float16:
        text_tower = folded(text_tower, float16=True)
    return DualPath(**model.shared_parts(image_tower=image_tower, text_tower=text_tower))


def _with_mirror_image(tower: keras.Model) -> keras.Model:
    import keras

    pixels = keras.Input(tower.input_shape[1:], name="image")
    mirrored = keras.ops.flip(pixels, axis=2)
    return keras.Model(pixels, tower(pixels) + tower(mirrored), name=tower.name)
