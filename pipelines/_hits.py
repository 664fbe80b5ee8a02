"""How the verbs that search show what was found: as a table, as JSON and as a contact sheet."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_dpce.errors import shorten
from tf_dpce.files import check_writable
from tf_dpce.logging import logger

if TYPE_CHECKING:
    from rich.table import Table

    from tf_dpce.search.answer import Answer, Hit

_LONGEST = 2_000  # characters of an id, a path or a text in the table
_PIPED = 10_000  # characters of a line of the table if stdout is no terminal


_OF_QUERY = ("unknown_words", "inferred_words")  # what is the same for all hits


@dataclass(frozen=True)
class Asked:
    """What an answer is shown with.

    Attributes:
        query: the query under the name of its option: "text", "image" or "query".
        kind: what was searched for, "images" or "texts".
        top: number of hits that were asked for.
        count: number of items of the kind in the index.
        lost: what is said of images whose files are not there.
        at_least: the least probability that was asked for.
        where: the filter, if there was one, of the first hits.
    """

    query: dict[str, str]
    kind: str
    top: int
    count: int
    lost: str
    at_least: float | None = None
    where: str | None = None


def check_sheet_file(sheet: Path | None) -> None:
    """Makes sure, before a search, that a contact sheet can be written.

    Raises:
        UserError: its name does not end in .png, or its folder cannot be written.
    """
    if sheet:
        from tf_dpce.drawing.contact_sheet import check_sheet

        check_sheet(sheet)
        check_writable(sheet.parent)


def show_answer(answer: Answer, asked: Asked, json_: bool, sheet: Path | None) -> None:
    """Prints an answer on stdout, with what is to be said of it on stderr, and draws the sheet.

    Args:
        answer: what was found.
        asked: what was asked for.
        json_: whether it is printed as JSON; the name of the sheet then goes to stderr.
        sheet: the contact sheet to draw, if any.
    """
    if json_:
        print(json.dumps(_document(answer, asked), indent=1, ensure_ascii=False, default=str))
    elif answer.hits:
        from rich.console import Console

        # For a program or a file a path is in one line, however long.
        width = None if sys.stdout.isatty() else _PIPED
        Console(width=width).print(_table(answer.hits, asked))
    for line in _remarks(answer, asked):
        logger.warning(line)
    if sheet:
        from tf_dpce.drawing.contact_sheet import SheetRow, contact_sheet

        name, query = next(iter(asked.query.items()))
        contact_sheet([SheetRow(Path(query) if name == "image" else query, answer.hits)], sheet)
        # With --json stdout is for a program to read.
        print(sheet, file=sys.stderr if json_ else sys.stdout)


def _document(answer: Answer, asked: Asked) -> dict[str, Any]:
    return {
        "query": asked.query,
        "unknown_words": answer.unknown_words,
        "inferred_words": answer.inferred_words,
        "for": asked.kind,
        "hits": [_record(hit) for hit in answer.hits],
        "more": answer.more,
    }


def _record(hit: Hit) -> dict[str, Any]:
    """Returns what is known of a hit; the words are those of the query."""
    fields = {name: value for name, value in asdict(hit).items() if name not in _OF_QUERY}
    return {name: value for name, value in fields.items() if value not in (None, (), {})}


def _remarks(answer: Answer, asked: Asked) -> list[str]:
    lines, hits = [], answer.hits
    if not hits and asked.where and answer.highest is None:
        lines.append(f"none of the {asked.count} {asked.kind} passes the filter {asked.where!r}")
    elif not hits and asked.at_least is not None:
        least = f"none of the {asked.kind} reaches a probability of {asked.at_least:g}"
        best = "" if answer.highest is None else f"; the highest is {answer.highest:.2g}"
        lines.append(f"nothing like that here: {least}{best}")
    elif len(hits) < asked.top:
        found = f"{len(hits)} of the {asked.count} {asked.kind} in the index"
        lines.append(f"asked for {asked.top}, found {found}")
    if answer.unknown_words:
        lines.append(f"not known, left out: {shorten(', '.join(answer.unknown_words))}")
    if answer.inferred_words:
        words = shorten(", ".join(answer.inferred_words))
        lines.append(f"understood by its word vector, never trained: {words}")
    if lost := sum(hit.is_lost for hit in hits):
        lines.append(f"{lost} of {len(hits)} images are {asked.lost}")
    return lines


def _table(hits: list[Hit], asked: Asked) -> Table:
    from rich.table import Table
    from rich.text import Text

    columns = {"rank": [str(hit.rank) for hit in hits], "score": [f"{h.score:.4f}" for h in hits]}
    if any(hit.probability is not None for hit in hits):
        columns["probability"] = [_percent(hit) for hit in hits]
    if any(hit.duplicates for hit in hits):
        columns["hidden"] = [f"{len(hit.duplicates)}" for hit in hits]
    table = Table(title=Text(next(iter(asked.query.values()))), title_justify="left")
    for name in columns:
        table.add_column(name, justify="right")
    names = _names(hits)
    for name in names:
        table.add_column(name, overflow="fold")
    for *numbers, hit in zip(*columns.values(), hits, strict=True):
        # Square brackets are no markup, and a file's name must not steer the terminal.
        cells = (Text(shorten(getattr(hit, name) or "", _LONGEST)) for name in names)
        table.add_row(*numbers, *cells)
    return table


def _names(hits: list[Hit]) -> list[str]:
    """Returns what names the hits; a path says the id too if it ends with it, as it mostly does."""
    if any(hit.text is not None for hit in hits):
        return ["id", "text"]
    return ["path"] if all((hit.path or "").endswith(hit.id) for hit in hits) else ["id", "path"]


def _percent(hit: Hit) -> str:
    return "" if hit.probability is None else f"{100 * hit.probability:.0f} %"
