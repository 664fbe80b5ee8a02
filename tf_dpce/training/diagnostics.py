"""Diagnoses training that fails silently, each failure in one line with its remedy."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_dpce.config import StageConfig
from tf_dpce.data.caption_lengths import UNSPLIT_WORDS, has_unsplit_words
from tf_dpce.data.input_timer import InputTimer
from tf_dpce.data.manifest import Manifest
from tf_dpce.errors import UserError
from tf_dpce.evaluation.vocabulary_coverage import count_captions
from tf_dpce.logging import logger
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.training.distributed import Workers

# Share of the ranking loss of embeddings that are all equal.
_DEAD_LOSS = 0.99
# Mean cosine of any two embeddings above which they count as collapsed.
_COLLAPSED = 0.98
# Length of an embedding below which its direction says nothing.
_NO_LENGTH = 1e-12
# Steps after which embeddings show what was learnt. Before, the averages of BatchNorm, which
# encoders use, are still near where they began: of that, 0.95**100 is less than a hundredth.
_ENOUGH_STEPS = 100
# Share of an epoch's time spent waiting for batches.
_STARVED = 0.2
# Percent of the words of captions that a vocabulary should know.
_KNOWN_WORDS = 50.0


class TrainingDiagnostics(keras.callbacks.Callback):
    """Warns of training that leads nowhere, each thing once; ends it if the loss is no number.

    It comes behind the validation, whose logs it reads, and before the checkpoints, so that none
    is written of a loss that is no number. It logs `input_share`, the share of an epoch's time
    that was spent waiting for batches, without its validation and without the very first step; of
    several workers the largest one counts, because all take their steps together.

    Args:
        stage: 1 or 2.
        settings: settings of the stage.
        steps: number of steps of an epoch.
        timer: measures the waiting.
        workers: processes that train together.
    """

    def __init__(
        self, stage: int, settings: StageConfig, steps: int, timer: InputTimer, workers: Workers
    ) -> None:
        super().__init__()
        self.stage = stage
        self.settings = settings
        self.steps = steps
        self.timer = timer
        self.workers = workers
        self._reported: set[str] = set()
        self._started = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch + 1
        self._began = (time.monotonic(), self.timer.seconds)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.timer.reset()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.timer.begin_step()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.timer.end_step()
        if not self._started:
            # The first step is traced and fills the buffers: only what comes behind it counts.
            self._started, self._began = True, (time.monotonic(), self.timer.seconds)
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise UserError(
                "training.diverged",
                f"the loss is {loss} in stage {self.stage}, epoch {self._epoch}: train again with "
                f"a lower --stage{self.stage}.learning_rate",
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        began, waited = self._began
        seconds = time.monotonic() - began - logs.get("validation_seconds", 0.0)
        shares = self.workers.all_gather((self.timer.seconds - waited) / max(seconds, 1e-9))
        logs["input_share"] = round(max(shares), 4)
        # The first epoch says little, except in a stage that has no other.
        is_last = epoch + 1 == self.settings.epochs
        if epoch == 0 and not is_last:
            return
        found = list(self._input_diagnoses(shares))
        if is_last or (epoch + 1) * self.steps >= _ENOUGH_STEPS:
            found += self._embedding_diagnoses(logs)
        for diagnosis, line in found:
            if diagnosis not in self._reported:
                self._reported.add(diagnosis)
                fields = {"event": "diagnosis", "diagnosis": diagnosis, "stage": self.stage}
                logger.warning(
                    f"stage {self.stage}, epoch {self._epoch}: {line}",
                    extra={"fields": fields | {"epoch": self._epoch}},
                )

    def _embedding_diagnoses(self, logs: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Yields the name of each failure to learn, and what was seen of it with its remedy."""
        loss, remedy = self.settings.loss, self._remedy()
        # Two hinges a row, each at the margin; paired negatives leave half of the rows without.
        margin = loss.margin * (1 if loss.pairs_negatives else 2)
        is_ranking = loss.pair > 0 and loss.pair_loss == "ranking"
        if is_ranking and logs.get("pair_loss", 0.0) >= _DEAD_LOSS * margin:
            yield (
                "dead_loss",
                f"the ranking loss stays at its margin ({logs['pair_loss']:.3f} of {margin:g}): "
                f"train with the instance loss first, or {remedy}",
            )
        for side in ("image", "caption"):
            cosine = logs.get(f"val_{side}_cosine", 0.0)
            if cosine >= _COLLAPSED:
                yield (
                    f"collapsed_{side}",
                    f"all {side} embeddings are nearly equal (mean cosine {cosine:.3f}), so that "
                    f"nothing can be found: train again and {remedy}",
                )

    def _remedy(self) -> str:
        option, steps = f"--stage{self.stage}", self.settings.epochs * self.steps
        if self.stage == 1 and steps < _ENOUGH_STEPS:
            return (
                f"give it more than {steps} steps, which are too few for the averages of "
                f"BatchNorm, by a smaller {option}.batch_size or more {option}.epochs"
            )
        lower = f"lower {option}.learning_rate"
        return lower if self.stage == 1 else f"{lower}, unless stage 1 ended with this warning"

    def _input_diagnoses(self, shares: list[float]) -> Iterator[tuple[str, str]]:
        share = max(shares)
        if share >= _STARVED:
            where = f" on worker {shares.index(share)}" if len(shares) > 1 else ""
            faster = "use a faster disk or more cores"
            if self.settings.backbone != "cached":
                faster = f"store smaller images, {faster}"
                faster += ", or train stage 1 with --stage1.backbone cached"
            yield (
                "starved_input",
                f"{share:.0%} of the epoch was spent waiting for batches{where}: {faster}",
            )


def mean_cosine(embeddings: np.ndarray) -> float:
    """Returns the mean cosine of two different rows of float `[N, D]`; 0 for one row.

    Rows without a length count as equal among themselves and as orthogonal to all others.
    """
    count = len(embeddings)
    if count < 2:
        return 0.0
    # `UnitLength` leaves the output of a dead tower as short as it is.
    lengths = np.sqrt(np.sum(np.square(embeddings, dtype=np.float64), axis=1))
    has_length = lengths > _NO_LENGTH
    units = embeddings[has_length] / lengths[has_length, np.newaxis]
    ones, zeros = len(units), count - len(units)
    summed = float(np.sum(np.square(units.sum(axis=0))))
    return (summed - ones + zeros * (zeros - 1)) / (count * (count - 1))


def warn_unknown_words(data: Path, manifest: Manifest, tokenizer: CaptionTokenizer) -> None:
    """Warns of a vocabulary that knows few words of the training or the validation captions.

    Training captions make the vocabulary, less the words without a vector if `prepare` was given
    word vectors: it has counted the words that are left. Pieces are learnt from all words.

    Args:
        data: folder of prepared data.
        manifest: manifest of that folder.
        tokenizer: tokenizer of captions.
    """
    pieces = tokenizer.kind == "wordpiece"
    known, split = 100.0 if pieces else 100 * manifest.vocabulary_coverage, "train"
    if known >= _KNOWN_WORDS and manifest.splits["val"].captions:
        known, split = count_captions(data, "val", tokenizer).coverage()["known_words"], "val"
    if known < _KNOWN_WORDS:
        remedy = "with --lowercase, without --vectors, or with vectors of this language"
        if has_unsplit_words(manifest.caption_lengths, tokenizer.words):
            remedy = f"and before that mend the captions: {UNSPLIT_WORDS}"
        logger.warning(
            f"only {known:.0f} % of the words in the captions of {split} are in the vocabulary: "
            f"prepare again, {remedy}",
            extra={"fields": {"event": "diagnosis", "diagnosis": "unknown_words", "split": split}},
        )
