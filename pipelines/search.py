"""Searches for images or texts with a text or an image: `python -m pipelines.search`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from pipelines._verb import run_verb, say_files, verb_parser
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

    manifest = IndexManifest.load(arguments.index)
    kind = arguments.kind or _usual_kind(arguments, manifest.counts)
    manifest.check(kind, arguments.top)
    if arguments.sheet is not None:
        from tf_dpce.drawing.contact_sheet import check_sheet

        check_sheet(arguments.sheet)

    from tf_dpce.search.searcher import Searcher

    searcher = Searcher(arguments.index, arguments.model)
    if arguments.image is None:
        query, hits = arguments.text, searcher.by_text(arguments.text, arguments.top, kind)
    else:
        query, hits = arguments.image, searcher.by_image(arguments.image, arguments.top, kind)
    _show(query, kind, hits, arguments.json)
    if len(hits) < arguments.top:
        found = f"{len(hits)} of the {manifest.counts[kind]} {kind} in the index"
        logger.warning(f"asked for {arguments.top}, found {found}")
    if arguments.sheet is not None:
        _draw(query, hits, arguments.sheet, arguments.json)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit status."""
    return run_verb(build_parser, run, argv)


def _usual_kind(arguments: Namespace, counts: dict[str, int]) -> str:
    return "texts" if arguments.image is not None and "texts" in counts else "images"


def _show(query: str | Path, kind: str, hits: list[Hit], as_json: bool) -> None:
    if as_json:
        given = {"image": str(query)} if isinstance(query, Path) else {"text": query}
        answer = {"query": given, "for": kind, "hits": [_present(hit) for hit in hits]}
        print(json.dumps(answer, indent=1, ensure_ascii=False))
        return

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(str(query)), title_justify="left")
    table.add_column("rank", justify="right")
    table.add_column("score", justify="right")
    table.add_column("id", overflow="fold")
    table.add_column("path" if kind == "images" else "text", overflow="fold")
    for hit in hits:
        content = hit.path if hit.text is None else hit.text
        # Text, because a caption's square brackets are no markup.
        table.add_row(str(hit.rank), f"{hit.score:.4f}", Text(hit.id), Text(content or ""))
    Console().print(table)


def _present(hit: Hit) -> dict[str, object]:
    return {name: value for name, value in asdict(hit).items() if value is not None}


def _draw(query: str | Path, hits: list[Hit], sheet: Path, as_json: bool) -> None:
    from tf_dpce.drawing.contact_sheet import SheetRow, contact_sheet

    contact_sheet([SheetRow(query, hits)], sheet)
    if as_json:
        print(sheet, file=sys.stderr)  # stdout is for a program to read
    else:
        say_files([sheet])


if __name__ == "__main__":
    sys.exit(main())
