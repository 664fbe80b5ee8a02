"""What TensorBoard shows of a validation: similarities, the retrieval panel, the projector."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary

from tf_dpce.config import Config
from tf_dpce.evaluation.embed import Embeddings
from tf_dpce.monitoring import event_file
from tf_dpce.monitoring.projector import Points, Projector, choose_points
from tf_dpce.monitoring.retrieval_panel import choose_panel
from tf_dpce.monitoring.validation_items import ValidationItems

# Seconds from one writing of the projector's points, which may take a second, to the next.
_PROJECTOR_SECONDS = 600.0
_MOST_NEGATIVES = 25_000


class ValidationView:
    """Shows the embeddings of validations: the same images and captions each time.

    Args:
        config: configuration of the run, whose seed chooses them.
        data: folder of prepared data.
        folder: folder of the TensorBoard run, for the files of the projector.
    """

    def __init__(self, config: Config, data: Path, folder: Path) -> None:
        items = ValidationItems(data, config.image.resize)
        self._points = choose_points(items, config.seed)
        self._panel = choose_panel(items, config.seed)
        self._projector = Projector(folder, items, self._points)
        self._projected_at: float | None = None

    def summaries(self, images: Embeddings, texts: Embeddings) -> list[Summary]:
        """Returns histograms and images of a validation."""
        panels = self._panel.draw(images, texts)
        return [
            event_file.histograms(similarities(images, texts, self._points)),
            *(_jpeg(tag, image) for tag, image in panels.items()),
        ]

    def project(self, images: Embeddings, texts: Embeddings, is_last: bool) -> None:
        """Writes the points of the projector, if it is the last validation or ten minutes passed.

        Raises:
            OSError: a file cannot be written.
        """
        now = time.monotonic()
        if is_last or not self._projected_at or now - self._projected_at >= _PROJECTOR_SECONDS:
            self._projector.write(images.vectors, texts.vectors)
            self._projected_at = time.monotonic()


def similarities(images: Embeddings, texts: Embeddings, points: Points) -> dict[str, np.ndarray]:
    """Returns cosines of the shown images and captions, those that belong together apart."""
    cosines = images.vectors[points.images] @ texts.vectors[points.captions].T
    own = images.instances[points.images][:, None] == texts.instances[points.captions]
    others = cosines[~own]
    # A sample has the same histogram.
    sample = others[:: 1 + len(others) // _MOST_NEGATIVES]
    return {"similarity/positive": cosines[own], "similarity/negative": sample}


def _jpeg(tag: str, image: Image.Image) -> Summary:
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=75)
    return event_file.image(tag, stream.getvalue(), image.size)
