"""A training step of MobileNetV2 end to end, with the shallow text tower, beside PyTorch."""

from __future__ import annotations

from pathlib import Path

from benchmarks.pairs import Pair, Side
from benchmarks.peers.train import OURS, SETTINGS, torch_side

_BATCH = 32


def pairs(images: Path | None) -> list[Pair]:
    """Returns the one pair; pixels are drawn."""
    settings = {**SETTINGS, "preset": "flickr8k_mobilenet", "stage": 2, "batch": _BATCH}
    peers = (
        torch_side("PyTorch", settings, 1.0),
        torch_side("PyTorch, torch.compile", settings, 1.0, compiled=True),
    )
    ours = Side("ours", f"{OURS}:ours", settings)
    return [Pair(f"batch {_BATCH}", "pairs a second", ours, peers)]
