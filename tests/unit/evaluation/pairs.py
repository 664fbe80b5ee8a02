"""Pairs of embeddings whose cosines are known to mean different things for different queries."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

DIMENSION = 15  # and one more number


class Pairs(NamedTuple):
    """Unit vectors, and the instance of each."""

    images: np.ndarray
    texts: np.ndarray
    image_ids: np.ndarray
    text_ids: np.ndarray


def made_up_pairs(seed: int, instances: int, captions: int = 1, vague: float = 0.0) -> Pairs:
    """Draws images at random, and captions near them.

    Args:
        seed: of the draws.
        instances: number of images.
        captions: number of captions of each.
        vague: how much captions differ in how close they come to all images: 0, not at all.
    """
    draw = np.random.default_rng(seed)
    images = draw.normal(size=(instances, DIMENSION))
    ids = np.arange(instances)
    owners = np.repeat(ids, captions)
    noise = draw.normal(size=(len(owners), DIMENSION))
    texts = images[owners] + 1.2 * noise
    # One more number, the same for all images: a caption that has much of it is near to each.
    level = vague * draw.uniform(-1, 1, len(owners)) * np.linalg.norm(texts, axis=1)
    images = _unit(np.column_stack([_unit(images), np.full(instances, 0.6)]))
    return Pairs(images, _unit(np.column_stack([texts, level])), ids, owners)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
