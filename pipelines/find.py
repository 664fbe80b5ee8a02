"""Finds the images of a folder that a sentence describes: `python -m pipelines.find`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse.typing import ClosedUnitInterval, PositiveInt

from pipelines._hits import Asked, check_sheet_file, show_answer
from pipelines._verb import options_verb
from tf_dpce.datasets.names import is_image
from tf_dpce.errors import UserError, shorten
from tf_dpce.logging import logger
from tf_dpce.runtimes import AnyRuntime

if TYPE_CHECKING:
    from tf_dpce.export.encoder import Encoder
    from tf_dpce.search.find.update import Update
    from tf_dpce.search.index.folder import FolderIndex
    from tf_dpce.search.queries.query import Term


def run(
    folder: Path,
    query: str,
    /,
    *,
    model: Path,
    top: PositiveInt = 10,
    where: str | None = None,
    at_least: ClosedUnitInterval | None = None,
    json_: bool = False,
    sheet: Path | None = None,
    index: Path | None = None,
    runtime: AnyRuntime = "tensorflow",
) -> None:
    """Finds the images of a folder that a sentence describes.

    The first time it indexes the folder, and after that only what has changed in it.

    Args:
        folder: folder of images; all below it are searched.
        query: a sentence, the file of an image (here or in the folder), or a sum of such:
            '"dog" - "ball" + beach.jpg'.
        model: exported model, or run folder.
        top: number of results.
        where: only images that this is true of, such as "taken >= '2024-01-01' and width > 640".
        at_least: only images that are what was asked for with this probability.
        json_: print results as JSON.
        sheet: draw the results as a contact sheet, FILE.png.
        index: folder of the index (default: one in the cache, by the folder and the model).
        runtime: what embeds; all but tensorflow must have been exported.
    """
    from tf_dpce.runtimes.load import load
    from tf_dpce.search.embedding.facts import image_schema
    from tf_dpce.search.embedding.fingerprint import model_digest
    from tf_dpce.search.find.update import default_index, existing_index
    from tf_dpce.search.probabilities import check_calibrated, find_calibration
    from tf_dpce.search.queries.filters import Filter

    # What can be wrong is found before TensorFlow is imported.
    if not folder.is_dir():
        message = f"{folder} is not a folder: give one that holds images"
        raise UserError("find.folder", message, folder)
    terms = _terms(query, folder)
    chosen = None if where is None else Filter.parse(where)
    if chosen:
        chosen.check(image_schema())
    check_sheet_file(sheet)
    folder, digest = folder.resolve(), model_digest(model)
    calibration = find_calibration(None, model)
    if at_least is not None:
        check_calibrated(calibration, terms, "images")
    out = index or default_index(folder, digest)
    existing_index(folder, out, digest)

    encoder = cache(partial(load, model, runtime))
    found = _updated_index(folder, out, digest, encoder)

    from tf_dpce.search.searcher import Searcher

    searcher = Searcher(found, encoder())
    searcher.calibration = calibration
    answer = searcher.search(terms, top, where=chosen, at_least=at_least)
    of_image = len(terms) == 1 and terms[0].image is not None and terms[0].weight > 0
    asked = Asked(
        query={"image": str(terms[0].image)} if of_image else {"query": query},
        kind="images",
        top=top,
        count=found.counts["images"],
        lost="no longer where they were indexed: run find again",
        at_least=at_least,
        where=where,
    )
    show_answer(answer, asked, json_, sheet)


def _terms(query: str, folder: Path) -> list[Term]:
    """Returns the terms of a query, whose images can be read: here, or else below the folder."""
    from tf_dpce.search.queries.query import Term, parse_query
    from tf_dpce.search.queries.query_encoder import read_query_image

    # The path of an image may hold blanks.
    is_path = is_image(query) and any(Path(at, query).is_file() for at in (".", folder))
    terms = [Term(image=query)] if is_path else parse_query(query)
    for place, term in enumerate(terms):
        if term.image is not None:
            path = str(term.image)
            if not Path(path).exists() and (folder / path).is_file():
                path = str(folder / path)
                terms[place] = replace(term, image=path)
            read_query_image(path)
    return terms


def _updated_index(
    folder: Path, out: Path, digest: str, encoder: Callable[[], Encoder]
) -> FolderIndex:
    """Brings the index of the folder up to date, and says what was found.

    Raises:
        UserError: there is no image to search.
    """
    from tf_dpce.search.find.update import existing_index, update_index

    update = update_index(folder, out, digest, encoder)
    found = existing_index(folder, out, digest)
    count = found.counts.get("images", 0) if found else 0
    _report(update, folder, out, count)
    if not count:
        raise _nothing(update, folder, out)
    return found


def _report(update: Update | None, folder: Path, out: Path, count: int) -> None:
    """Logs where the index lies, and what is missing in it."""
    from tf_dpce.search.find.update import rejected_file

    if update is None:
        logger.warning(f"another find is indexing {folder}: this answers from what is there")
    else:
        first = shorten(min(update.unreadable, default=""))
        for what, number, more in (
            ("images that cannot be searched", update.rejected, f"see {rejected_file(out)}"),
            ("images that changed while they were read", update.waiting, "run find again"),
            ("unreadable, or no name in UTF-8", len(update.unreadable), f"such as {first}"),
        ):
            if number:
                logger.warning(f"{what}: {number:,}, {more}")
    if count:
        logger.info(f"{count:,} images in the index {out}")


def _nothing(update: Update | None, folder: Path, out: Path) -> UserError:
    """Returns why there is nothing to search."""
    from tf_dpce.search.find.update import rejected_file

    if update is None:
        message = f"another find has begun to index {folder}: wait until it has some images"
        return UserError("find.busy", message, out)
    refused = rejected_file(out)
    message = f"none of the images below {folder} can be searched: see {refused}"
    return UserError("find.none", message, refused)


build_parser, main = options_verb("find", run)

if __name__ == "__main__":
    sys.exit(main())
