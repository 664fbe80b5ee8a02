"""What TensorBoard's own reader finds in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

Points = list[tuple[int, np.ndarray]]


def board(folder: Path) -> dict[str, Points]:
    """Returns steps and values by tag."""
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return {
        tag: [(e.step, make_ndarray(e.tensor_proto)) for e in accumulator.Tensors(tag)]
        for tag in accumulator.Tags()["tensors"]
    }


def steps(points: Points) -> list[int]:
    return [step for step, _ in points]
