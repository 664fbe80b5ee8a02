"""Answers a query, a text or an image, with ranked images or texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from tf_dpce.errors import UserError
from tf_dpce.evaluation.calibration import Calibration
from tf_dpce.export.encoder import Encoder
from tf_dpce.runtimes import AnyRuntime
from tf_dpce.search.answer import Answer, Candidates, Choice, Hit, Wanted, choose_candidates
from tf_dpce.search.embedding.fingerprint import model_digest
from tf_dpce.search.embedding.store import IMAGES
from tf_dpce.search.index.build import open_index
from tf_dpce.search.interface import Index
from tf_dpce.search.probabilities import find_calibration, is_like_a_pair, probabilities
from tf_dpce.search.queries.query import Term
from tf_dpce.search.queries.query_encoder import EmbeddedQuery, QueryEncoder

_GROWTH = 4  # of the number of items that are looked through, while too many are duplicates
_ATTEMPTS = 2  # of a search beside somebody who changes the index, before the last
_OWN_FIELDS = ("id", "path", "text")  # of a hit; the other columns are its metadata


class Searcher:
    """Answers queries from an index.

    Many threads may ask at once. If the index changes, the next query is answered from what it
    holds then.

    Args:
        index: an index: its folder, the address of its database, or what `open_index` returned.
        model: the model that the index was built with: a run folder, an exported version or a
            folder of versions; or what `tf_dpce.load` returned for it.
        images_from: folder to which the images were moved, if they are not where they were
            embedded any more. The path of an image is then that of its id below this folder, if
            there is such a file.
        runtime: what computes the embeddings of queries, if `model` is a path; see
            `tf_dpce.load`.

    Attributes:
        index: the index.
        encoder: the model.
        calibration: what gives hits their probabilities; None if there is none.

    Raises:
        UserError: there is no index or no model, the index was built with another model, or
            `images_from` is not a folder.

    Example:
        >>> searcher = tf_dpce.Searcher("index", "saved_models/scenes")
        >>> [hit.rank for hit in searcher.by_text("a dog on the grass", top=2)]
        [1, 2]
        >>> terms = [Term(2.0, text="a dog"), Term(-1.0, image="dog.jpg")]
        >>> answer = searcher.search(terms, top=2, skip=2)
        >>> [hit.rank for hit in answer.hits], answer.more
        ([3, 4], True)
    """

    def __init__(
        self,
        index: Path | str | Index,
        model: Path | str | Encoder,
        images_from: Path | str | None = None,
        runtime: AnyRuntime = "tensorflow",
    ) -> None:
        self._images_from = images_from and Path(images_from)
        if self._images_from and not self._images_from.is_dir():
            message = f"{images_from} is not a folder: give the one that holds the images now"
            raise UserError("search.images_from", message, images_from)
        self.index = open_index(index) if isinstance(index, (Path, str)) else index
        path = Path(model) if isinstance(model, (Path, str)) else None
        if path is None and runtime != "tensorflow":
            message = f"this model computes where it is, not in {runtime}: leave the runtime out"
            raise UserError("runtimes.name", message)
        # Whatever can be wrong is found before the model is loaded, which takes seconds.
        self._model = model_digest(path) if path else self.index.model
        self._check_model()
        # Probabilities are those of whole embeddings.
        is_whole = self.index.whole == self.index.dimension
        self.calibration = find_calibration(self.index, path) if is_whole else None
        if path:
            from tf_dpce.runtimes.load import load

            model = load(path, runtime)
        self.encoder = model
        self._queries = QueryEncoder(model)
        if self.encoder.dimension != self.index.whole:
            raise UserError(
                "search.other_model",
                f"{self.index.name} is of embeddings of {self.index.whole} numbers, but those "
                f"of the model have {self.encoder.dimension}: search with the one that made them",
                self.index.name,
            )

    def by_text(
        self, query: str, top: int = 10, kind: str = IMAGES, **choice: Unpack[Choice]
    ) -> list[Hit]:
        """Returns the best hits for a text; signs in it are no operators.

        Args:
            query: the text.
            top: K, the number of hits; fewer are returned if there are fewer.
            kind: what to find, "images" or "texts".
            **choice: which hits are wanted, see `search`.

        Raises:
            UserError: the query is empty or has no known word; or see `search`.
        """
        return self.search([Term(text=query)], top, kind, **choice).hits

    def by_image(
        self, image: str | Path | bytes, top: int = 10, kind: str = IMAGES, **choice: Unpack[Choice]
    ) -> list[Hit]:
        """Returns the best hits for an image.

        Args:
            image: the path or the bytes of a file: JPEG, PNG, or what `to_png` turns into PNG.
            top: K, the number of hits; fewer are returned if there are fewer.
            kind: what to find, "images" or "texts".
            **choice: which hits are wanted, see `search`.

        Raises:
            UserError: the image cannot be read or decoded; or see `search`.
        """
        return self.search([Term(image=image)], top, kind, **choice).hits

    def by_id(
        self, item: str, top: int = 10, kind: str = IMAGES, **choice: Unpack[Choice]
    ) -> list[Hit]:
        """Returns the hits that are most like an item of the index, without itself.

        Args:
            item: its id.
            top: K, the number of hits; fewer are returned if there are fewer.
            kind: what the item is and what to find, "images" or "texts".
            **choice: which hits are wanted, see `search`.

        Raises:
            UserError: there is no such item; or see `search`.
        """
        return self.search([Term(id=item)], top, kind, **choice).hits

    def search(
        self, terms: Sequence[Term], top: int = 10, kind: str = IMAGES, **choice: Unpack[Choice]
    ) -> Answer:
        """Returns the best hits for a weighted sum of texts, images and items.

        If the index has a querybank, hits for images are normalised if texts make up at least half
        of the weight of the terms, and hits for texts if images make up more than half.

        Args:
            terms: one or more, see `tf_dpce.search.queries.query.parse_query`.
            top: K, the number of hits; fewer are returned if there are fewer.
            kind: what to find, "images" or "texts".
            **choice: which hits are wanted: `where`, `at_least`, `hide_duplicates` and `skip` of
                `Choice`.

        Raises:
            UserError: a term cannot be embedded, the terms cancel each other, `top` is below 1,
                the index does not hold `kind` or what is asked of it, or was built anew with
                another model.
        """
        wanted = Wanted.of(kind, top, **choice)
        for _ in range(_ATTEMPTS):
            version = self.index.version
            try:
                return self._search(terms, wanted)
            except UserError:
                # What was found may be gone a moment later, if somebody changes the index.
                if self.index.version == version:
                    raise
        return self._search(terms, wanted)

    def _search(self, terms: Sequence[Term], wanted: Wanted) -> Answer:
        self._check_model()
        wanted.check(self.index, terms, self.calibration)
        kind, skip, last = wanted.kind, wanted.skip, wanted.last
        calibration = self.calibration if is_like_a_pair(terms, kind) else None
        query = self._queries.embed(terms, self.index, kind)
        candidates = self._candidates(query, wanted, calibration)
        places = candidates.leading[skip:last]
        records = candidates.found.contents.records(places).to_pylist()
        hits = [
            self._hit(rank, record, place, candidates, query)
            for rank, (record, place) in enumerate(zip(records, places, strict=True), skip + 1)
        ]
        return Answer(
            hits,
            query.unknown_words,
            more=len(candidates.leading) > last,
            highest=candidates.highest,
            inferred_words=query.inferred_words,
        )

    def _candidates(
        self, query: EmbeddedQuery, wanted: Wanted, calibration: Calibration | None
    ) -> Candidates:
        """Ranks items until there are as many hits as are wanted, or no more can follow.

        How many items that takes is not known if many are duplicates, so that their number grows
        until it is enough; all attempts together cost little more than the last. Probabilities
        fall with the rank on the whole, not from each to the next: if none of the later half is
        high enough, none of those behind is looked at.
        """
        kind, at_least, enough = wanted.kind, wanted.at_least or 0, wanted.last + 1
        count, size = self.index.counts[kind], enough + len(query.own)
        while True:
            size = min(size, count)
            (found,) = self.index.search(
                kind, query.embedding[None], size, of=query.kind, where=wanted.where
            )
            # If a filter lets few items pass, these are all that were compared.
            corpus = count if len(found) == size else len(found)
            chances = probabilities(calibration, query.embedding, kind, found, corpus)
            candidates = choose_candidates(found, chances, query.own, wanted)
            ended = chances is not None and (chances[len(chances) // 2 :] < at_least).all()
            if len(candidates.leading) >= enough or ended or len(found) < size or size == count:
                return candidates
            size *= _GROWTH

    def _hit(
        self,
        rank: int,
        record: dict[str, Any],
        place: int,
        candidates: Candidates,
        query: EmbeddedQuery,
    ) -> Hit:
        hit = Hit(
            rank=rank,
            id=record["id"],
            score=float(candidates.found.scores[place]),
            path=record.get("path"),
            text=record.get("text"),
            unknown_words=query.unknown_words,
            inferred_words=query.inferred_words,
            probability=None if candidates.chances is None else float(candidates.chances[place]),
            duplicates=candidates.duplicates(place),
            metadata={name: record[name] for name in record if name not in _OWN_FIELDS},
        )
        moved = self._images_from and hit.path and self._images_from / hit.id
        return replace(hit, path=str(moved)) if moved and moved.is_file() else hit

    def _check_model(self) -> None:
        """Makes sure that the index, as it is now, is of the model.

        Raises:
            UserError: it is of another one.
        """
        if self.index.model != self._model:
            raise UserError(
                "search.other_model",
                f"{self.index.name} was built with another model: search with that one, or embed "
                "and index again with this one",
                self.index.name,
            )
