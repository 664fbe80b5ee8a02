"""Searches for images or texts with a text or an image: `python -m pipelines.search`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines._verb import options_verb
from tf_dpce.errors import shorten
from tf_dpce.files import check_writable
from tf_dpce.logging import logger

if TYPE_CHECKING:
    from tf_dpce.search.answer import Hit


def run(
    index: Path,
    model: Path,
    text: str | None = None,
    image: Path | None = None,
    for_: Literal["images", "texts"] | None = None,
    top: int = 10,
    json_: bool = False,
    sheet: Path | None = None,
    images_from: Path | None = None,
) -> None:
    """Searches for images or texts with a text or an image.

    Args:
        index: folder of an index.
        model: model that the index was built with.
        text: query: a text.
        image: query: a file of an image.
        for_: what to find (default: images for a text, texts for an image if there are any).
        top: number of results.
        json_: print results as JSON.
        sheet: draw the results as a contact sheet, FILE.png.
        images_from: folder to which the images were moved since they were embedded.
    """
    from tf_dpce.search.index import open_index
    from tf_dpce.search.interface import check_answerable

    counts = open_index(index).counts
    kind = for_ or ("texts" if image and "texts" in counts else "images")
    check_answerable(counts, kind, top)
    if sheet:
        from tf_dpce.drawing.contact_sheet import SheetRow, check_sheet, contact_sheet

        check_sheet(sheet)
        check_writable(sheet.parent)

    from tf_dpce.search.query_encoder import read_query_image
    from tf_dpce.search.searcher import Searcher

    if image:
        read_query_image(image)  # its faults are found before a model is loaded
    searcher = Searcher(index, model, images_from)
    query = image or text
    hits = (searcher.by_image if image else searcher.by_text)(query, top, kind)
    if json_:
        answer = {
            "query": {"image" if image else "text": str(query)},
            "unknown_words": hits[0].unknown_words if hits else (),
            "for": kind,
            "hits": [_record(hit) for hit in hits],
        }
        print(json.dumps(answer, indent=1, ensure_ascii=False, default=str))
    else:
        _print_table(str(query), kind, hits)
    if len(hits) < top:
        found = f"{len(hits)} of the {counts[kind]} {kind} in the index"
        logger.warning(f"asked for {top}, found {found}")
    _warn_of_losses(hits, images_from)
    if sheet:
        contact_sheet([SheetRow(query, hits)], sheet)
        # With --json stdout is for a program to read.
        print(sheet, file=sys.stderr if json_ else sys.stdout)


def _record(hit: Hit) -> dict[str, Any]:
    return {
        k: v for k, v in asdict(hit).items() if v not in (None, (), {}) and k != "unknown_words"
    }


def _warn_of_losses(hits: list[Hit], images_from: Path | None) -> None:
    if hits and hits[0].unknown_words:
        logger.warning(f"not known, left out: {shorten(', '.join(hits[0].unknown_words))}")
    if lost := sum(hit.is_lost for hit in hits):
        where = "not where they were embedded: --images-from FOLDER"
        if images_from:
            where = f"neither where they were embedded nor below {images_from}"
        logger.warning(f"{lost} of {len(hits)} images are {where}")


def _print_table(query: str, kind: str, hits: list[Hit]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(query), title_justify="left")
    table.add_column("rank", justify="right")
    table.add_column("score", justify="right")
    table.add_column("id", overflow="fold")
    table.add_column("path" if kind == "images" else "text", overflow="fold")
    for hit in hits:
        content = hit.path if hit.text is None else hit.text
        # Text, because a caption's square brackets are no markup.
        table.add_row(str(hit.rank), f"{hit.score:.4f}", Text(hit.id), Text(content or ""))
    Console().print(table)


build_parser, main = options_verb("search", run, {("text", "image"): True})

if __name__ == "__main__":
    sys.exit(main())
