"""Searches for images or texts with a text or an image: `python -m pipelines.search`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from pipelines._verb import run_verb, verb_parser
from tf_dpce.logging import logger
from tf_dpce.search.embedding_store import KINDS

if TYPE_CHECKING:
    from tf_dpce.search.searcher import Hit


def build_parser() -> ArgumentParser:
    """Returns the verb's parser."""
    parser = verb_parser("search", "Searches for images or texts with a text or an image.")
    parser.add_argument("--index", type=Path, required=True, help="folder of an index")
    parser.add_argument(
        "--model", type=Path, required=True, help="model that the index was built with"
    )
    query = parser.add_mutually_exclusive_group(required=True)
    query.add_argument("--text", type=str, help="query: a text")
    query.add_argument("--image", type=Path, help="query: a file of an image")
    parser.add_argument(
        "--for",
        dest="kind",
        choices=KINDS,
        help="what to find (default: images for a text, texts for an image if there are any)",
    )
    parser.add_argument("--top", type=int, default=10, help="number of results")
    parser.add_argument("--json", action="store_true", help="print results as JSON")
    parser.add_argument("--sheet", type=Path, help="draw the results as a contact sheet, FILE.png")
    return parser


def run(arguments: Namespace) -> None:
    """Searches, shows the hits and draws them."""
    from tf_dpce.search.index import IndexManifest

    by_image = arguments.image is not None
    query = arguments.image if by_image else arguments.text
    manifest = IndexManifest.load(arguments.index)
    usual = "texts" if by_image and "texts" in manifest.counts else "images"
    kind = arguments.kind or usual
    manifest.check(kind, arguments.top)
    if arguments.sheet is not None:
        from tf_dpce.drawing.contact_sheet import SheetRow, check_sheet, contact_sheet

        check_sheet(arguments.sheet)

    from tf_dpce.search.searcher import Searcher

    searcher = Searcher(arguments.index, arguments.model)
    hits = (searcher.by_image if by_image else searcher.by_text)(query, arguments.top, kind)
    if arguments.json:
        answer = {
            "query": {"image" if by_image else "text": str(query)},
            "for": kind,
            "hits": [{k: v for k, v in asdict(hit).items() if v is not None} for hit in hits],
        }
        print(json.dumps(answer, indent=1, ensure_ascii=False))
    else:
        _print_table(str(query), kind, hits)
    if len(hits) < arguments.top:
        found = f"{len(hits)} of the {manifest.counts[kind]} {kind} in the index"
        logger.warning(f"asked for {arguments.top}, found {found}")
    if arguments.sheet is not None:
        contact_sheet([SheetRow(query, hits)], arguments.sheet)
        # With --json stdout is for a program to read.
        print(arguments.sheet, file=sys.stderr if arguments.json else sys.stdout)


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


main = partial(run_verb, build_parser, run)

if __name__ == "__main__":
    sys.exit(main())
