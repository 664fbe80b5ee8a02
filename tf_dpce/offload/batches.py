"""Training batches from a bundle, as a `keras.utils.PyDataset`: NumPy and Pillow alone.

Whatever is drawn is a function of (seed, stage, epoch, place in the epoch), so that batches repeat
exactly, in whichever order, and in however many threads, they are made.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
from PIL import Image

from tf_dpce.config import Config
from tf_dpce.offload.bundle import Split
from tf_dpce.preprocessing.plain import crop_windows, grouped, picked, shifted
from tf_dpce.training.assembly import stage_targets

# Places of the draws of a row; the crop takes four.
_CAPTION, _SHIFT, _FLIP, _CROP = 0, 1, 2, 3
_DRAWS = 7

# Of an epoch: the order of its pictures int64 `[N]`, and the draws of its places float32 `[N, 7]`.
Plan = tuple[np.ndarray, np.ndarray]
Batch = tuple[dict[str, np.ndarray], dict[str, Any]]


class Pairs(keras.utils.PyDataset):
    """The training pairs of one epoch: each picture once at most, with one caption.

    As in `train`, what is left over when the pictures are cut into batches waits for the next
    epoch. A batch is what a stage's network takes, `image` float32 `[B, S, S, 3]` and `text` int32
    `[B, T]`, and what its losses compare with.

    Args:
        split: of training.
        config: of the run.
        stage: 1 or 2.
        threads: that make batches ahead; 0 makes each as it is asked for.

    Example:
        >>> pairs = Pairs(bundle.split("train"), bundle.config, stage=1)
        >>> pairs.begin(epoch=3)
        >>> inputs, targets = pairs[0]
    """

    def __init__(self, split: Split, config: Config, stage: int, threads: int = 0) -> None:
        # Not by `workers`: what those have made when an epoch ends, Keras 3.15 hands out in the
        # next one, and then makes all batches of that one besides.
        super().__init__()
        self.split = split
        self.config = config
        self.stage = stage
        self.batch_size = config.stage(stage).batch_size
        # A row takes a caption of its picture, or of any picture of its instance.
        own = config.text.captions_of == "picture"
        self._groups = np.arange(len(split.instances)) if own else split.instances
        of_caption = np.repeat(self._groups, np.diff(split.first))
        by_group, self._first = grouped(of_caption)
        self._ids = split.ids[by_group]
        self._pool = ThreadPoolExecutor(threads) if threads else None
        self._ahead = 2 * threads
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Makes the batches those of an epoch, counted from 0."""
        key = np.random.SeedSequence([self.config.seed, self.stage, epoch])
        chance, pictures = np.random.default_rng(key), len(self.split.instances)
        draws = chance.random((pictures, _DRAWS), np.float32)
        self._plan: Plan = (chance.permutation(pictures), draws)
        self._coming: dict[int, Future] = {}

    @property
    def num_batches(self) -> int:
        """Steps in an epoch."""
        return len(self.split.instances) // self.batch_size

    def __getitem__(self, step: int) -> Batch:
        """Returns the batch of a step of the epoch."""
        if self._pool is None:
            return self._batch(self._plan, step)
        for later in range(step, min(step + self._ahead, self.num_batches)):
            if later not in self._coming:
                self._coming[later] = self._pool.submit(self._batch, self._plan, later)
        return self._coming.pop(step).result()

    def _batch(self, plan: Plan, step: int) -> Batch:
        places = slice(step * self.batch_size, (step + 1) * self.batch_size)
        rows, draws = (of_epoch[places] for of_epoch in plan)
        # Keras casts labels to float32: `manifest` has no more classes than that can tell apart.
        ids = self.split.instances[rows].astype(np.int32)
        roles = np.arange(len(ids), dtype=np.int32)
        targets = stage_targets(
            self.config.stage(self.stage).loss, ids, np.stack([ids, roles], axis=1)
        )
        return {"image": self._images(rows, draws), "text": self._texts(rows, draws)}, targets

    def _images(self, rows: np.ndarray, draws: np.ndarray) -> np.ndarray:
        image = self.config.image
        # Copied out of the file: it is mapped, and is not to be written to.
        pictures = np.array(self.split.pictures[rows])
        if image.crop:
            windows = crop_windows(self.split.shapes[rows], draws[:, _CROP:], image.squash)
            boxes = relative(windows, self.split.shapes[rows]) * pictures.shape[1]
            cut = [crop(*pair, image.input_size) for pair in zip(pictures, boxes, strict=True)]
            pictures = np.stack(cut)
        if image.flip:
            mirrored = draws[:, _FLIP] < 0.5
            pictures[mirrored] = pictures[mirrored, :, ::-1]
        return pictures.astype(np.float32)

    def _texts(self, rows: np.ndarray, draws: np.ndarray) -> np.ndarray:
        groups = self._groups[rows]
        first = self._first[groups]
        chosen = first + picked(draws[:, _CAPTION], self._first[groups + 1] - first)
        ids = self._ids[chosen]
        return shifted(ids, draws[:, _SHIFT]) if self.config.text.shift else ids


class Epochs(keras.callbacks.Callback):
    """Tells a `Pairs` which epoch begins, before Keras asks for its first batch.

    Args:
        pairs: that `fit` was given.
    """

    def __init__(self, pairs: Pairs) -> None:
        super().__init__()
        self.pairs = pairs

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.pairs.begin(epoch)


def relative(windows: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Returns windows as shares of their pictures.

    Args:
        windows: integers `[B, 4]`: top, left, height and width.
        shapes: integers `[B, 2]`: height and width of the pictures.

    Returns:
        float64 `[B, 4]`: left, top, right and bottom, in 0..1, as Pillow has it.
    """
    starts, ends = windows[:, :2], windows[:, :2] + windows[:, 2:]
    return np.concatenate([(starts / shapes)[:, ::-1], (ends / shapes)[:, ::-1]], axis=1)


def crop(picture: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """Returns a rectangle of a picture uint8 `[H, W, 3]` as uint8 `[size, size, 3]`, bicubic.

    Args:
        picture: RGB.
        box: left, top, right and bottom, in its pixels, fractions allowed.
        size: side of the result.
    """
    image = Image.fromarray(picture)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, tuple(box.tolist())))
