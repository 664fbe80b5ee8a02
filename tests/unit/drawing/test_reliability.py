"""The figure of probabilities: of bins with enough hits, on axes from 0 to 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tf_dpce.drawing.reliability import draw_reliability


def drawn(path: Path, *counts: int) -> np.ndarray:
    """The pixels of a figure of two bins with these numbers of hits."""
    bins = [(0.2, 0.6, counts[0]), (0.8, 0.4, counts[1])]
    archives = [{"items": 20, "error": 0.1, "reliability": bins}]
    draw_reliability({"image_to_text": archives, "text_to_image": archives}, path)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), int)


def test_bins_of_few_hits_are_no_points_and_axes_have_numbers_without_any(tmp_path: Path):
    both, one, none = (
        drawn(tmp_path / f"{counts}.png", *counts) for counts in ((20, 20), (20, 19), (19, 19))
    )
    # Within the axes they differ, and beside them, where the numbers are, they do not.
    assert (both != one).any() and (one != none).any()
    for other in (one, none):
        assert (both[:, :50] == other[:, :50]).all()
