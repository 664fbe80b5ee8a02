"""The file that a process appends to and TensorBoard reads, and what stands in it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.image.metadata import create_summary_metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

_NAME = "events.out.tfevents."
_VERSION = "brain.Event:2"


class EventFile:
    """Appends summaries to a new file in the folder of a TensorBoard run.

    Every process writes a file of its own. It begins with a mark by which TensorBoard forgets what
    former processes wrote of the steps that this one does again, so that a run that was killed and
    resumed has no step twice. What was added is in the file, whatever then ends the process.

    Args:
        folder: folder of the TensorBoard run; made by the first `add`.
        first_step: the first step that is written again, or anew.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        # TensorBoard reads the files of a folder in the order of their names.
        numbers = [
            int(path.name.removeprefix(_NAME)) for path in folder.glob(f"{_NAME}{'[0-9]' * 10}")
        ]
        self.path = folder / f"{_NAME}{max(numbers, default=0) + 1:010d}"
        self._first_step = first_step

    def add(self, step: int, *summaries: Summary) -> None:
        """Appends summaries of a step, all or none.

        Raises:
            OSError: the file cannot be written; it ends with the last whole event.
        """
        merged = Summary(value=[value for summary in summaries for value in summary.value])
        events = [Event(wall_time=time.time(), step=step, summary=merged)]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        size = self.path.stat().st_size if self.path.exists() else 0
        if not size:
            start = SessionLog(status=SessionLog.START)
            events.insert(0, Event(wall_time=time.time(), file_version=_VERSION))
            events.insert(1, Event(step=self._first_step, session_log=start))
        try:
            with self.path.open("ab") as stream:
                for event in events:
                    RecordWriter(stream).write(event.SerializeToString())
        except OSError:
            with suppress(OSError):
                os.truncate(self.path, size)
            raise


def scalars(values: Mapping[str, float]) -> Summary:
    """Returns the points of curves, by tag."""
    return Summary(
        value=[v for tag, number in values.items() for v in scalar_pb(tag, number).value]
    )


def histograms(values: Mapping[str, np.ndarray]) -> Summary:
    """Returns histograms of values of any shape, by tag; those without any value are left out."""
    filled = {tag: numbers for tag, numbers in values.items() if numbers.size}
    return Summary(value=[v for tag, x in filled.items() for v in histogram_pb(tag, x).value])


def image(tag: str, encoded: bytes, size: tuple[int, int]) -> Summary:
    """Returns an image.

    Args:
        tag: its name.
        encoded: bytes of a PNG or JPEG.
        size: its width and height.
    """
    parts: list[Any] = [*(str(side).encode() for side in size), encoded]
    metadata = create_summary_metadata(display_name=None, description=None)
    tensor = make_tensor_proto(np.array(parts, object), dtype=np.object_)
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])
