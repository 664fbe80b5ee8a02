"""`history.csv`: a line for each epoch."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import keras

from tf_dpce.errors import UserError
from tf_dpce.files import publish_file

HISTORY_FILE = "history.csv"
RANKS = ("r1", "r5", "r10", "medr", "meanr")
_COLUMNS = (
    "stage",
    "epoch",
    "epoch_seconds",
    "validation_seconds",
    "input_share",
    "learning_rate",
    "loss",
    "image_logits_loss",
    "text_logits_loss",
    "pair_loss",
    "val_rsum",
    *(f"val_i2t_{rank}" for rank in RANKS),
    *(f"val_t2i_{rank}" for rank in RANKS),
)


class History(keras.callbacks.Callback):
    """Appends a line to `history.csv` after each epoch.

    `epoch_seconds` are the epoch's own, steps and validation together; of an epoch that was
    resumed, those since then.

    Args:
        run: folder of the run.
        stage: 1 or 2.
    """

    def __init__(self, run: Path, stage: int) -> None:
        super().__init__()
        self.path = run / HISTORY_FILE
        self.stage = stage

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._began = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        row = {
            **logs,
            "stage": self.stage,
            "epoch": epoch + 1,
            "epoch_seconds": round(time.monotonic() - self._began, 1),
            "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
        }
        rows = [*read_history(self.path, before=(self.stage, epoch + 1)), row]
        with publish_file(self.path) as temporary, temporary.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, _COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)


def read_history(path: Path, before: tuple[int, int]) -> list[dict[str, str]]:
    """Returns the lines of a `history.csv` before a (stage, epoch), as dicts of strings.

    Raises:
        UserError: the file is not what was written.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        return [row for row in rows if (int(row["stage"]), int(row["epoch"])) < before]
    except (csv.Error, KeyError, TypeError, ValueError):
        raise UserError(
            "run.history",
            f"{path} is damaged: put a copy back, or remove it, which loses its lines and no more",
            path,
        ) from None
