"""Queries: a sentence or an image to ranked images or sentences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.preprocessing.status import OK, REASONS
from tf_dpce.search.catalogue import Catalogue
from tf_dpce.search.embed import BatchEncoder
from tf_dpce.search.embedding_store import IMAGES, TEXTS
from tf_dpce.search.fingerprint import model_digest
from tf_dpce.search.metadata import Table
from tf_dpce.search.reading import Refusal, read_image


@dataclass(frozen=True)
class Hit:
    """One answer.

    Args:
        rank: 1 is the best.
        id: as `embed` gave it.
        score: inner product of unit vectors, the cosine (approximate where the index is). If
            the index was built with a querybank and the query is of the other kind, less half of
            the item's hubness.
        path: the image's file, for an image.
        text: the sentence, for a sentence.
    """

    rank: int
    id: str
    score: float
    path: str | None = None
    text: str | None = None


class Searcher:
    """Answers queries from an index, which is read once, when a kind is first asked for.

    Args:
        index_folder: what `build_index` wrote.
        encoder: of the model that the index was built with.

    Raises:
        UserError: there is no index, or its vectors are not the encoder's.

    Example:
        >>> searcher = Searcher(Path("index"), tf_dpce.load("saved_models/scenes"))
        >>> searcher.by_text("a red circle left of a blue square", top=1)
        [Hit(rank=1, id='test-0012', score=0.93, path='/data/test-0012.png', text=None)]
    """

    def __init__(self, index_folder: Path, encoder: BatchEncoder) -> None:
        self.catalogue = Catalogue.load(index_folder)
        if encoder.dimension != self.catalogue.dimension:
            raise UserError(
                f"{index_folder} holds vectors of {self.catalogue.dimension} numbers, the model "
                f"gives {encoder.dimension}: search with the model that embedded them"
            )
        self.encoder = encoder
        self._folder = index_folder / str(self.catalogue.version)
        self._opened: dict[str, tuple[Any, Table]] = {}

    def by_text(self, sentence: str, top: int = 10, kind: str = IMAGES) -> list[Hit]:
        """Returns the best `top` items of `kind` for a sentence, all if there are fewer.

        Raises:
            UserError: the sentence is empty or has no known word, `top` is below 1, or the index
                does not hold `kind`.
        """
        self.catalogue.check(kind, top)
        vectors, status = self.encoder.texts([sentence])
        _refuse(f"the text {sentence[:60]!r}", int(status[0]))
        return self._nearest(vectors, top, kind, TEXTS)

    def by_image(self, image: str | Path | bytes, top: int = 10, kind: str = IMAGES) -> list[Hit]:
        """Returns the best `top` items of `kind` for an image, all if there are fewer.

        Args:
            image: a file, or the bytes of a JPEG or PNG.
            top: K.
            kind: "images" or "texts".

        Raises:
            UserError: the image cannot be read or decoded, `top` is below 1, or the index does
                not hold `kind`.
        """
        self.catalogue.check(kind, top)
        name = "the image" if isinstance(image, bytes) else str(image)
        contents = image if isinstance(image, bytes) else read_image(str(image))
        if isinstance(contents, Refusal):
            raise UserError(f"{name} cannot be used: {contents.reason}")
        vectors, status = self.encoder.images([contents])
        _refuse(name, int(status[0]))
        return self._nearest(vectors, top, kind, IMAGES)

    def _nearest(self, vectors: np.ndarray, top: int, kind: str, asked_by: str) -> list[Hit]:
        index, records = self._open(kind)
        if kind in self.catalogue.querybanks:
            # Only queries of the other kind are normalised.
            crosses = np.full((len(vectors), 1), asked_by != kind, np.float32)
            vectors = np.hstack([vectors, crosses])
        scores, rows = _search(index, vectors, min(top, len(records)))
        # FAISS leaves the order of equal scores open, and marks what it did not find by -1.
        found = sorted((-score, row) for score, row in zip(scores, rows, strict=True) if row >= 0)
        return [
            Hit(rank, score=-score, **records[row]) for rank, (score, row) in enumerate(found, 1)
        ]

    def _open(self, kind: str) -> tuple[Any, Table]:
        import faiss

        if kind not in self._opened:
            path = self._folder / f"{kind}.faiss"
            try:
                index = faiss.read_index(str(path))
                self._opened[kind] = index, Table(path.with_suffix(".jsonl"))
            except (RuntimeError, FileNotFoundError, ValueError):
                raise UserError(f"{path} is missing or damaged: build the index again") from None
        return self._opened[kind]


def open_searcher(index_folder: Path, model: Path) -> Searcher:
    """Loads a model to search an index with, once it is sure that they belong together.

    Args:
        index_folder: what `build_index` wrote.
        model: an exported version, a folder of versions, or a run folder.

    Raises:
        UserError: there is no index or no model, or the index was built with another model.
    """
    if Catalogue.load(index_folder).model != model_digest(model):
        remedy = "search with that model, or embed and index again with this one"
        raise UserError(f"{index_folder} was built with another model than {model}: {remedy}")
    from tf_dpce.export.encoder import load

    return Searcher(index_folder, load(model))


def _search(index: Any, vectors: np.ndarray, top: int) -> tuple[list[float], list[int]]:
    """Asks FAISS for the best `top`; an inverted file looks further when it finds too few."""
    import faiss

    scores, rows = index.search(vectors, top)
    inverted = faiss.try_extract_index_ivf(index)
    if inverted and (rows < 0).any():
        usual, inverted.nprobe = inverted.nprobe, inverted.nlist
        scores, rows = index.search(vectors, top)
        inverted.nprobe = usual
    return scores[0].tolist(), rows[0].tolist()


def _refuse(what: str, status: int) -> None:
    if status != OK:
        raise UserError(f"{what} cannot be used: {REASONS[status]}")
