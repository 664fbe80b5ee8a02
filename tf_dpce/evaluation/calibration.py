"""How likely it is that a hit is what was asked for, in NumPy.

A cosine of 0.6 means little by itself: for one query it is far above everything else, for another
any image reaches it. Six numbers say more: the cosine and its square, how close the query comes to
a sample of items that it does not mean, how close the item comes to a sample of queries that do not
mean it, the margin over the best other hit, and the logarithm of how many items were compared. A
logistic regression over them is fitted on validation pairs.

It is fitted on the best hits of each query twice: with the right items among those that are
searched, and without them. So a probability counts on both being equally likely, and an item is
"right" if it belongs to the pair of the query.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.evaluation.querybank import hubness
from tf_dpce.files import publish_file

CALIBRATION_FILE = "calibration.npz"
CALIBRATION_FOLDER = "assets.extra"  # of an exported version

_NEAREST = 0.02  # of a sample
QUERY_KIND = {"images": "texts", "texts": "images"}


@dataclass(frozen=True)
class Direction:
    """The calibration of searches for one kind of item with queries of the other.

    Attributes:
        items: float32 `[S, D]`, a sample of embeddings of what is searched.
        queries: float32 `[R, D]`, a sample of embeddings of queries.
        weights: float64 `[7]`: a constant, and a weight for each feature.
        error: the expected calibration error of first hits among the validation pairs.
    """

    items: np.ndarray
    queries: np.ndarray
    weights: np.ndarray
    error: float

    def closeness(self, queries: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns how close queries and items come to the samples that do not mean them.

        Args:
            queries: float `[Q, D]`, unit vectors.
            items: float `[N, D]`, unit vectors.

        Returns:
            `[Q]` and `[N]`.
        """
        return closeness(queries, self.items), closeness(items, self.queries)

    def chances(
        self, cosines: np.ndarray, usual: np.ndarray, popular: np.ndarray, corpus: int
    ) -> np.ndarray:
        """Returns the probabilities of the best hits of queries, float64 `[Q, K]`.

        Args:
            cosines: float `[Q, K]`, best first.
            usual: float `[Q]`, the closeness of the queries.
            popular: float `[Q, K]`, the closeness of the hits.
            corpus: number of items that were compared.
        """
        return sigmoid(hit_features(cosines, usual, popular, corpus) @ self.weights)


@dataclass(frozen=True)
class Calibration:
    """Turns cosines into probabilities.

    Attributes:
        directions: by the kind that is searched, "images" and "texts".
        images: number of validation images that it was fitted on.
        texts: number of validation texts.

    Example:
        >>> from tf_dpce.evaluation.calibration_fit import fit_calibration
        >>> images, ids = np.eye(200), np.arange(200)
        >>> texts = images * 0.8 + np.roll(images, 1, axis=0) * 0.6
        >>> calibration = fit_calibration(images, texts, ids, ids)
        >>> right, wrong = calibration.probabilities("images", texts[7], images[[7, 8]], corpus=200)
        >>> bool(right > 0.9 > 0.1 > wrong)
        True
    """

    directions: dict[str, Direction]
    images: int
    texts: int

    def probabilities(
        self, kind: str, query: np.ndarray, hits: np.ndarray, corpus: int
    ) -> np.ndarray:
        """Returns how likely it is that each hit is what was asked for.

        Args:
            kind: what was searched, "images" or "texts", with a query of the other kind.
            query: float `[D]`, of unit length.
            hits: float `[K, D]`, of unit length: the best hits of all, best first.
            corpus: number of items that were compared.

        Returns:
            Float64 `[K]`, in 0..1. They need not fall with the rank: of two items with nearly the
            same cosine, the one that is far from most other queries is likelier.
        """
        if not len(hits):
            return np.zeros(0)
        side = self.directions[kind]
        query, hits = query[None].astype(np.float32), hits.astype(np.float32)
        usual, popular = side.closeness(query, hits)
        return side.chances(query @ hits.T, usual, popular[None], corpus)[0]

    def save(self, folder: Path) -> None:
        """Writes `calibration.npz` with embeddings in float16, without pickled objects."""
        arrays = {
            f"{kind}.{name}": value
            for kind, side in self.directions.items()
            for name, value in (
                ("items", side.items.astype(np.float16)),
                ("queries", side.queries.astype(np.float16)),
                ("weights", side.weights),
                ("error", side.error),
            )
        }
        arrays["pairs"] = np.array([self.images, self.texts])
        folder.mkdir(parents=True, exist_ok=True)
        with publish_file(folder / CALIBRATION_FILE) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)

    @classmethod
    def read(cls, path: Path) -> Calibration:
        """Reads a file that `save` wrote.

        Raises:
            UserError: the file is missing or damaged.
        """
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                directions = {kind: _read(arrays, kind) for kind in QUERY_KIND}
                return cls(directions, *arrays["pairs"].tolist())
        except (OSError, EOFError, LookupError, ValueError, TypeError, zipfile.BadZipFile) as error:
            message = (
                f"{path} is missing or damaged ({error}): export the model again with --data, "
                "then embed and index"
            )
            raise UserError("calibration.damaged", message, path) from None


def _read(arrays: np.lib.npyio.NpzFile, kind: str) -> Direction:
    items, queries, weights = (arrays[f"{kind}.{name}"] for name in ("items", "queries", "weights"))
    if items.ndim != 2 or items.shape[1:] != queries.shape[1:] or weights.shape != (7,):
        raise ValueError("its arrays do not fit together")
    error = float(arrays[f"{kind}.error"])
    return Direction(items.astype(np.float32), queries.astype(np.float32), weights, error)


def hit_features(
    cosines: np.ndarray, usual: np.ndarray, popular: np.ndarray, corpus: int
) -> np.ndarray:
    """Returns the features of the best hits of queries, float64 `[Q, K, 7]`.

    Args:
        cosines: float `[Q, K]`, best first.
        usual: float `[Q]`, closeness of the query to items that it does not mean.
        popular: float `[Q, K]`, closeness of the items to queries that do not mean them.
        corpus: number of items that were compared.
    """
    cosines = cosines.astype(np.float64)
    best_other = np.repeat(cosines[:, :1], cosines.shape[1], axis=1)
    # The only item there is has no margin.
    best_other[:, 0] = cosines[:, min(1, cosines.shape[1] - 1)]
    constant = np.ones_like(cosines)
    return np.stack(
        [
            constant,
            cosines,
            cosines**2,
            constant * usual[:, None],
            popular,
            cosines - best_other,
            constant * np.log(corpus),
        ],
        axis=-1,
    )


def closeness(vectors: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Returns the mean cosine of each vector with the nearest of a sample."""
    return hubness(vectors, sample, max(1, round(_NEAREST * len(sample))))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    # Of a logit beyond 700 the exponential would overflow.
    return 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
