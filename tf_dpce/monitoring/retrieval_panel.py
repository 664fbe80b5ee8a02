"""Fixed validation queries with their first hits, right and wrong ones, as images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tf_dpce.drawing.hit_rows import Cell, HitRow, hit_rows
from tf_dpce.evaluation.embed import Embeddings
from tf_dpce.monitoring.validation_items import ValidationItems

QUERIES = 5
HITS = 5


@dataclass(frozen=True)
class Panel:
    """The queries of a panel, which stay the same in all epochs.

    Attributes:
        items: the validation images and captions.
        images: int64 `[5]` or fewer, the numbers of the images that are queries.
        captions: int64 `[5]` or fewer, the numbers of the captions that are queries.
    """

    items: ValidationItems
    images: np.ndarray
    captions: np.ndarray

    def draw(self, images: Embeddings, texts: Embeddings) -> dict[str, Image.Image]:
        """Returns the panel of images found by captions, and that of captions found by images."""
        items, answers = self.items, list(_answers(self.captions, texts, images))
        items.load([*self.images.tolist(), *(hit for _, hits, *_ in answers for hit in hits)])
        found_images = [
            HitRow(items.captions[query], _cells(hits, right, items.thumbnail), rank)
            for query, hits, right, rank in answers
        ]
        found_captions = [
            HitRow(items.thumbnail(query), _cells(hits, right, items.captions.__getitem__), rank)
            for query, hits, right, rank in _answers(self.images, images, texts)
        ]
        return {
            "retrieval/images found by captions": hit_rows(found_images),
            "retrieval/captions found by images": hit_rows(found_captions),
        }


def choose_panel(items: ValidationItems, seed: int) -> Panel:
    """Chooses the queries by a seed."""
    draws = np.random.default_rng(seed)
    captions = draws.permutation(len(items.captions))[:QUERIES]
    images = draws.permutation(items.image_of[-1] + 1)[:QUERIES]
    return Panel(items, np.sort(images), np.sort(captions))


def _cells(
    hits: np.ndarray, right: np.ndarray, show: Callable[[int], Image.Image | str]
) -> list[Cell]:
    return [Cell(show(int(hit)), bool(ok)) for hit, ok in zip(hits, right, strict=True)]


def _answers(
    queries: np.ndarray, asked: Embeddings, corpus: Embeddings
) -> Iterator[tuple[int, np.ndarray, np.ndarray, int]]:
    """Yields each query, its first hits, which of them are right, and the best rank of a right one.

    A wrong item with an equal score ranks before the right one, as in the metrics.
    """
    for query in queries.tolist():
        # Rounded, because scores of equal vectors differ in their last digits.
        scores = np.round(corpus.vectors @ asked.vectors[query], 6)
        right = corpus.instances == asked.instances[query]
        order = np.lexsort((right, -scores))
        rank = int(np.argmax(right[order])) + 1
        yield query, order[:HITS], right[order[:HITS]], rank
