"""A training step of the text tower, the heads and the classifier, beside other frameworks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.pairs import Pair, Side

# Of Flickr8k's size. Nothing is dropped, so that all sides have the same losses.
SETTINGS = {"preset": "flickr8k_paper", "words": 7_400, "classes": 6_000}
OURS, TORCH = "benchmarks.peers.step_sides", "benchmarks.peers.torch_step"
_BATCHES = (64, 256)


def pairs(images: Path | None) -> list[Pair]:
    """Returns a pair for each size of a batch; features of images are drawn."""
    return [_pair(batch) for batch in _BATCHES]


def _pair(batch: int) -> Pair:
    settings = {**SETTINGS, "stage": 1, "batch": batch}
    peers = [
        Side("matrix product of as many multiply-adds", f"{OURS}:product", settings, goal=0.75),
        torch_side("PyTorch", settings, 1.2),
        torch_side("PyTorch, torch.compile", settings, 1.2, compiled=True),
        torch_side("PyTorch, rows as ours", settings, 1.2, rows=True),
    ]
    if batch == min(_BATCHES):
        peers += [keras_side(backend, settings) for backend in ("jax", "torch")]
    return Pair(
        f"batch {batch}",
        "pairs a second",
        Side("ours", f"{OURS}:ours", settings),
        tuple(peers),
        rounds=5,
        warm_up=1,
    )


def torch_side(name: str, settings: dict[str, Any], goal: float, **options: bool) -> Side:
    """Returns the same network in PyTorch, whose compiler needs another one."""
    needs = ("torch", "g++") if options.get("compiled") else ("torch",)
    return Side(name, f"{TORCH}:step", {**settings, **options}, needs, goal=goal)


def keras_side(backend: str, settings: dict[str, Any]) -> Side:
    """Returns the same Keras model on another backend."""
    return Side(
        f"Keras on {backend}",
        f"{OURS}:on_backend",
        settings,
        (backend,),
        {"KERAS_BACKEND": backend},
        goal=1.2,
    )
