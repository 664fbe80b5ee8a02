"""The probabilities of hits: where a search finds its calibration, and what it asks of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.evaluation.calibration import CALIBRATION_FILE, CALIBRATION_FOLDER, Calibration
from tf_dpce.export.versions import find_version, is_run
from tf_dpce.search.interface import Index, Ranking
from tf_dpce.search.queries.query import Term
from tf_dpce.storage import open_folder


def calibration_file(model: Path) -> Path | None:
    """Returns the calibration of an exported model, or None; a run folder has none."""
    if is_run(model):
        return None
    path = find_version(model) / CALIBRATION_FOLDER / CALIBRATION_FILE
    return path if path.is_file() else None


def copy_calibration(model: Path, embeddings: str | Path) -> None:
    """Puts the calibration of a model beside the embeddings that it made, if it has one.

    So an index has it also if a model server embeds the queries.
    """
    path = calibration_file(model)
    if path is None:
        return
    contents, folder = path.read_bytes(), open_folder(embeddings)
    if CALIBRATION_FILE not in folder.names() or folder.read([CALIBRATION_FILE]) != [contents]:
        folder.write(CALIBRATION_FILE, contents)


def find_calibration(index: Index | None, model: Path | None) -> Calibration | None:
    """Returns the calibration of a model, else the one in the index, else None.

    Args:
        index: the index, if there is one; only one in a folder holds a calibration.
        model: an exported model or a run folder; None if a model server embeds.

    Raises:
        UserError: the file is damaged.
    """
    # Imported where it is used, with FAISS, because `embed` needs no index.
    from tf_dpce.search.index.folder import FolderIndex

    path = model and calibration_file(model)
    if path is None and isinstance(index, FolderIndex) and index.manifest.calibration:
        path = index.folder / index.manifest.calibration.name
    return Calibration.read(path) if path else None


def is_like_a_pair(terms: Sequence[Term], kind: str) -> bool:
    """Whether a query and its hits are of two kinds, as the pairs of a calibration are.

    Args:
        terms: the query.
        kind: the kind that is searched.
    """
    return len(terms) == 1 and terms[0].weight > 0 and terms[0].kind(kind) != kind


def check_calibrated(calibration: Calibration | None, terms: Sequence[Term], kind: str) -> None:
    """Makes sure that the hits of a query have probabilities.

    Args:
        calibration: what `find_calibration` found.
        terms: the query.
        kind: the kind that is searched.

    Raises:
        UserError: there is no calibration, or the query is not like a pair of one.
    """
    if calibration is None:
        message = (
            "the model has no calibration, so that probabilities are not known: export it again "
            "with --data, or search without a least probability"
        )
        raise UserError("search.at_least", message)
    if not is_like_a_pair(terms, kind):
        message = (
            "only hits of one text that finds images, and of one image that finds texts, have "
            "probabilities: search without a least one"
        )
        raise UserError("search.at_least", message)


def probabilities(
    calibration: Calibration | None, query: np.ndarray, kind: str, found: Ranking, corpus: int
) -> np.ndarray | None:
    """Returns the probability of each item that was found, float `[K]`, or None.

    They follow from the plain embeddings, because scores may be approximate or normalised with a
    querybank.

    Args:
        calibration: the calibration; None if the hits have no probabilities.
        query: float32 `[D]`, the embedding of the query.
        kind: the kind that was searched.
        found: the best items of all.
        corpus: number of items that were compared.
    """
    if calibration is None or not len(found):
        return None
    hits = found.contents.vectors(np.arange(len(found)))
    hits /= np.linalg.norm(hits, axis=1, keepdims=True)
    return calibration.probabilities(kind, query, hits, corpus)
