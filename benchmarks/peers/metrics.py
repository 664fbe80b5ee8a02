"""The recalls of MSCOCO's 5K test, beside the usual loop and a bare matrix product."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.pairs import Pair, Side, Work

_CAPTIONS = 5
_SIZE = {"images": 5_000, "captions": 25_010, "dimension": 1_024}
# Images that the loop takes of all: all of them would take a minute or two a round.
_PART = 100


def pairs(images: Path | None) -> list[Pair]:
    """Returns the one pair; embeddings are drawn."""
    peers = (
        Side("NumPy, a loop over queries", f"{__name__}:loop", _SIZE, goal=20.0),
        Side("one matrix product, float32", f"{__name__}:product", _SIZE, goal=0.77),
        Side("one matrix product, float64", f"{__name__}:product", {**_SIZE, "kind": "float64"}),
    )
    ours = Side("ours", f"{__name__}:ours", _SIZE)
    return [
        Pair("5,000 x 25,010 x 1,024", "tests a second", ours, peers, 1e-6, rounds=5, warm_up=1)
    ]


def ours(folder: Path, images: int, captions: int, dimension: int) -> Work:
    """Opens all metrics of both directions; the answer has the ranks of the first images."""
    from tf_dpce.evaluation.metrics import retrieval_metrics
    from tf_dpce.evaluation.ranks import best_ranks

    image_vectors, text_vectors, of_images, of_captions = embeddings(images, captions, dimension)
    of_all = best_ranks(image_vectors, text_vectors, of_images, of_captions)
    ranks = [of_all[0][:_PART], of_all[1][of_captions < _PART]]
    call = partial(retrieval_metrics, image_vectors, text_vectors, of_images, of_captions)
    return Work(call, np.concatenate(ranks), 1.0)


def loop(folder: Path, images: int, captions: int, dimension: int) -> Work:
    """Opens the usual loop, a product and a sort for each image, over a part of the images."""
    image_vectors, text_vectors, _, of_captions = embeddings(images, captions, dimension)
    own = [np.flatnonzero(of_captions == image) for image in range(_PART)]

    def ranks() -> np.ndarray:
        found: list[list[int]] = [[], []]
        for image in range(_PART):
            order = np.argsort(image_vectors[image] @ text_vectors.T)[::-1]
            found[0].append(min(np.flatnonzero(order == caption)[0] for caption in own[image]) + 1)
            for scores in text_vectors[own[image]] @ image_vectors.T:
                found[1].append(np.flatnonzero(np.argsort(scores)[::-1] == image)[0] + 1)
        return np.concatenate(found)

    return Work(ranks, ranks(), _PART / images)


def product(
    folder: Path, images: int, captions: int, dimension: int, kind: str = "float32"
) -> Work:
    """Opens the product of all embeddings, which ranks need at least once."""
    left, right, *_ = (each.astype(kind) for each in embeddings(images, captions, dimension))
    return Work(lambda: left @ right.T, None, 1.0)


def embeddings(
    images: int, captions: int, dimension: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns embeddings of images and of captions, some nearer to their own, and both's ids."""
    draw = np.random.default_rng(0)
    image_vectors = draw.standard_normal((images, dimension), np.float32)
    of_captions = np.minimum(np.arange(captions) // _CAPTIONS, images - 1)
    noise = draw.standard_normal((captions, dimension), np.float32)
    text_vectors = image_vectors[of_captions] + 8 * noise
    return _unit(image_vectors), _unit(text_vectors), np.arange(images), of_captions


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
