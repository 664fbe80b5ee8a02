"""What a search is asked for besides its query, and what it answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.evaluation.calibration import Calibration
from tf_dpce.search.interface import Index, Ranking, check_answerable
from tf_dpce.search.probabilities import check_calibrated
from tf_dpce.search.queries.duplicates import check_rule, leaders_by
from tf_dpce.search.queries.filters import Filter
from tf_dpce.search.queries.query import Term


@dataclass(frozen=True)
class Hit:
    """An image or a text that was found.

    Attributes:
        rank: the rank; 1 is the best.
        id: the id that `embed` gave the item.
        score: the cosine similarity to the query (approximate if the index is). If the index has a
            querybank and the query is of the other kind, half of the item's hubness is subtracted.
        path: the file, if the item is an image.
        text: the text, if the item is a text.
        unknown_words: words of the query that the model does not know and left out, the same for
            all hits of a query; of a query with more than 256 different words those among the
            first 256.
        inferred_words: words of the query that the model was never trained on and understands by
            their word vectors alone, see `export --expand`; the same for all hits of a query.
        probability: how likely it is that the item is what was asked for; None if it is not known,
            because the model has no calibration, or none for such a query.
        duplicates: ids of the items that are hidden behind this one, if duplicates are hidden; of
            those that were looked through for this answer.
        metadata: the other columns of the index.

    Example:
        >>> hit = Hit(rank=1, id="dog.jpg", score=0.53, path="gone/dog.jpg")
        >>> hit.is_lost
        True
    """

    rank: int
    id: str
    score: float
    path: str | None = None
    text: str | None = None
    unknown_words: tuple[str, ...] = ()
    inferred_words: tuple[str, ...] = ()
    probability: float | None = None
    duplicates: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def is_lost(self) -> bool:
        """Whether the item is an image whose file does not exist."""
        return self.path is not None and not os.path.isfile(self.path)


@dataclass(frozen=True)
class Answer:
    """What a search found.

    Attributes:
        hits: the hits, best first.
        unknown_words: words of the query that the model does not know, see `Hit`.
        inferred_words: words of the query that the model was never trained on, see `Hit`.
        more: whether there are further hits behind these.
        highest: the highest probability of the items that were looked through, of those that are
            no hits too because it is too small; None if probabilities are not known.

    Example:
        >>> answer = Answer([Hit(1, "dog.jpg", 0.53)], unknown_words=("zebra",))
        >>> [hit.id for hit in answer.hits], answer.more
        (['dog.jpg'], False)
    """

    hits: list[Hit]
    unknown_words: tuple[str, ...] = ()
    more: bool = False
    highest: float | None = None
    inferred_words: tuple[str, ...] = ()


class Choice(TypedDict, total=False):
    """Which hits are wanted.

    Attributes:
        where: only items that pass this filter, see `tf_dpce.search.queries.filters`.
        at_least: only hits of at least this probability, in 0..1.
        hide_duplicates: "content" hides files with the same bytes, or equal texts; a number hides
            items whose cosine with a better hit is at least that.
        skip: number of hits that are left out before the first one.
    """

    where: Filter | str | None
    at_least: float | None
    hide_duplicates: str | float | None
    skip: int


@dataclass(frozen=True)
class Wanted:
    """Which hits are wanted, and how many.

    Attributes:
        kind: what to find, "images" or "texts".
        top: number of hits.
        where: see `Choice`.
        at_least: see `Choice`.
        hide_duplicates: see `Choice`.
        skip: see `Choice`.
    """

    kind: str
    top: int
    where: Filter | None = None
    at_least: float | None = None
    hide_duplicates: str | float | None = None
    skip: int = 0

    @classmethod
    def of(cls, kind: str, top: int, **choice: Unpack[Choice]) -> Wanted:
        """Returns what somebody asks for, whose filter may be a text.

        Raises:
            UserError: the filter cannot be read.
        """
        where = choice.get("where")
        if isinstance(where, str):
            choice["where"] = Filter.parse(where)
        return cls(kind, top, **choice)

    @property
    def last(self) -> int:
        """The rank of the last hit."""
        return self.skip + self.top

    def check(self, index: Index, terms: Sequence[Term], calibration: Calibration | None) -> None:
        """Makes sure that an index can be asked for these hits.

        Args:
            index: the index.
            terms: the query.
            calibration: what gives hits their probabilities, if there is one.

        Raises:
            UserError: `top` is below 1, `skip` below 0 or `at_least` not in 0..1, the index does
                not hold `kind`, the filter or the rule for duplicates does not fit it, or hits of
                this query have no probabilities.
        """
        check_answerable(index.counts, self.kind, self.top)
        if self.skip < 0:
            message = f"the number of results to skip must be at least 0, not {self.skip}"
            raise UserError("search.top", message)
        if self.at_least is not None and not 0 <= self.at_least <= 1:
            message = f"a least probability is a number from 0 to 1, not {self.at_least:g}"
            raise UserError("search.at_least", message)
        if self.where is not None:
            self.where.check(index.columns(self.kind))
        check_rule(self.hide_duplicates, self.kind, index)
        if self.at_least is not None:
            check_calibrated(calibration, terms, self.kind)


@dataclass(frozen=True)
class Candidates:
    """Items that were looked through for an answer.

    Attributes:
        found: the items.
        chances: the probability of each, float `[K]`, or None.
        places: which of them are probable enough.
        leaders: for each of `places` that of the best item that it is a duplicate of.
        leading: places of the hits: of those that lead, unless an item of the query is among their
            duplicates.
    """

    found: Ranking
    chances: np.ndarray | None
    places: np.ndarray
    leaders: np.ndarray
    leading: np.ndarray

    @property
    def highest(self) -> float | None:
        """See `Answer`."""
        return None if self.chances is None else float(self.chances.max())

    def duplicates(self, place: int) -> tuple[str, ...]:
        """Returns the ids of the items behind the one at a place."""
        behind = self.places[self.leaders == place][1:]
        return tuple(self.found.column("id", behind).to_pylist()) if len(behind) else ()


def choose_candidates(
    found: Ranking, chances: np.ndarray | None, own: frozenset[str], wanted: Wanted
) -> Candidates:
    """Chooses the items that are hits.

    Args:
        found: items.
        chances: the probability of each, float `[K]`, or None.
        own: ids of the query's own items.
        wanted: which hits are wanted; one more than these is chosen, if there is one.
    """
    places, rule = np.arange(len(found)), wanted.hide_duplicates
    if chances is not None:
        places = places[chances >= (wanted.at_least or 0)]
    most = wanted.last + 1 + len(own)
    leaders = places[leaders_by(rule, found, places, wanted.kind, most)]
    leading = places[leaders == places]
    if own:
        ids = found.column("id", places).to_pylist()
        leading = np.setdiff1d(leading, leaders[[item in own for item in ids]])
    return Candidates(found, chances, places, leaders, leading)
