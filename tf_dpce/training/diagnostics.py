"""Failures that are silent, each told in one line with what to do about it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tf_dpce.config import LossConfig
from tf_dpce.errors import UserError

if TYPE_CHECKING:
    from tf_dpce.data.input_timer import Waiting

# Of the loss that embeddings have which are all alike.
_STUCK = 0.99
# Mean cosine of any two embeddings.
_ALIKE = 0.98
# Length of a row below which its direction says nothing.
_NO_LENGTH = 1e-12
# Share of an epoch's steps that goes by without input.
_STARVED = 0.2


class Watch(keras.callbacks.Callback):
    """Tells of training that goes on and leads nowhere; stops it where the loss is no number.

    It stands behind the validation, whose logs it reads, and before the checkpoints, so that none
    is written of a loss that is no number. Each thing is told once a stage. `input_share`, of an
    epoch's time without its validation that went by waiting for batches, is added to the logs: of
    several workers, that of the one that waits the longest, since all take their steps together.

    Args:
        stage: 1 or 2.
        loss: the stage's losses.
        epochs: of the stage.
        waiting: of the stage's batches; None where nobody measures it.
        say: called with a line.
        each: returns, of a number that each worker has, all of them in order.
    """

    def __init__(
        self,
        stage: int,
        loss: LossConfig,
        epochs: int,
        waiting: Waiting | None,
        say: Callable[[str], None],
        each: Callable[[float], Sequence[float]] = lambda own: [own],
    ) -> None:
        super().__init__()
        self.stage = stage
        self.loss = loss
        self.epochs = epochs
        self.waiting = waiting
        self.say = say
        self.each = each
        self._told: set[str] = set()
        self._started = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch + 1
        # The first epoch says little, but of a stage that has no other one.
        self._judged = epoch > 0 or self.epochs == 1
        self._began = self._marks = (time.monotonic(), self._waiting_seconds())

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.waiting is not None:
            self.waiting.begin()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.waiting is not None:
            self.waiting.wanted()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.waiting is not None:
            self.waiting.taken()
        if not self._started:
            # The first step fills the buffers and is traced: what is judged begins behind it.
            self._started, self._marks = True, (time.monotonic(), self._waiting_seconds())
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is {loss} in stage {self.stage}, epoch {self._epoch}: train anew with "
                f"a lower --stage{self.stage}.learning_rate"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._tell_stuck(logs)
        for side in ("images", "sentences"):
            self._tell_alike(side, logs.get(f"val_{side}_alike", 0.0))
        if self.waiting is not None:
            self._tell_starved(logs)

    def _tell_stuck(self, logs: dict[str, Any]) -> None:
        # Two hinges a row, each at the margin; where half of the rows lend negatives, they are 0.
        margin = self.loss.margin * (1 if self.loss.pairs_negatives else 2)
        is_ranking = self.loss.pair > 0 and self.loss.pair_loss == "ranking"
        if is_ranking and self._judged and logs.get("pair_loss", 0.0) >= _STUCK * margin:
            self._tell(
                "stuck",
                f"the ranking loss stays at its margin ({logs['pair_loss']:.3f} of {margin:g}): "
                "train with the instance loss first, or lower "
                f"--stage{self.stage}.learning_rate",
            )

    def _tell_alike(self, side: str, cosine: float) -> None:
        # After some dozen steps the averages of BatchNorm may still make all alike.
        if self._judged and cosine >= _ALIKE:
            self._tell(
                side,
                f"all {side} are embedded alike (mean cosine {cosine:.3f}): nothing can be found; "
                f"train anew with a lower --stage{self.stage}.learning_rate",
            )

    def _tell_starved(self, logs: dict[str, Any]) -> None:
        validated = logs.get("validation_seconds", 0.0)
        logs["input_share"] = round(max(self.each(self._share(self._began, validated))), 4)
        shares = self.each(self._share(self._marks, validated))
        share = max(shares)
        if self._judged and share >= _STARVED:
            where = f" on worker {shares.index(share)}" if len(shares) > 1 else ""
            self._tell(
                "starved",
                f"{share:.0%} of the epoch went by without input{where}: store smaller images, "
                "use a faster disk or more cores, or train stage 1 with --stage1.backbone cached",
            )

    def _share(self, marks: tuple[float, float], validated: float) -> float:
        """Returns how much of the time since then went by without input."""
        began, waited = marks
        spent = time.monotonic() - began - validated
        return (self._waiting_seconds() - waited) / max(spent, 1e-9)

    def _waiting_seconds(self) -> float:
        return 0.0 if self.waiting is None else self.waiting.seconds

    def _tell(self, what: str, line: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self.say(f"warning, stage {self.stage}, epoch {self._epoch}: {line}")


def mean_cosine(vectors: np.ndarray) -> float:
    """Returns the mean cosine of two different rows of float `[N, D]`; 0 of one row.

    Rows that have no length are alike among themselves, and stand square to all others.
    """
    count = len(vectors)
    if count < 2:
        return 0.0
    # `UnitLength` leaves what a dead tower gives as short as it is.
    lengths = np.sqrt(np.sum(np.square(vectors, dtype=np.float64), axis=1))
    pointing = lengths > _NO_LENGTH
    units = vectors[pointing] / lengths[pointing, np.newaxis]
    ones, zeros = len(units), count - len(units)
    summed = float(np.sum(np.square(units.sum(axis=0))))
    return (summed - ones + zeros * (zeros - 1)) / (count * (count - 1))
