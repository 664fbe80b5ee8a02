"""HTML of templates in files: every value that is no HTML itself is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from string import Template


class Html(str):
    """Text that is HTML: it came out of a template, or is joined of such."""

    __slots__ = ()


def fill(template: str, **values: object) -> Html:
    """Returns a template of this folder with its places filled.

    Args:
        template: name of the file, without `.html`.
        values: by place. What is not `Html` is escaped.
    """
    text = files(__package__).joinpath(f"{template}.html").read_text(encoding="utf-8")
    return Html(Template(text).substitute({name: _html(value) for name, value in values.items()}))


def joined(parts: Iterable[Html]) -> Html:
    """Returns pieces of HTML one after the other."""
    return Html("".join(parts))


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], kind: str = "") -> Html:
    """Returns a table of the class `kind`; cells are escaped."""
    lines = [("th", headings), *(("td", row) for row in rows)]
    cells = (
        f"<tr>{''.join(f'<{tag}>{_html(cell)}</{tag}>' for cell in row)}</tr>" for tag, row in lines
    )
    return Html(f'<div class="wide {kind}"><table>{"".join(cells)}</table></div>')


def paragraph(text: str) -> Html:
    """Returns a paragraph of a text, which is escaped."""
    return Html(f"<p>{_html(text)}</p>")


def data_url(kind: str, contents: bytes) -> str:
    """Returns the address of an image that holds the image itself."""
    return f"data:image/{kind};base64,{base64.b64encode(contents).decode()}"


def _html(value: object) -> str:
    return value if isinstance(value, Html) else escape(str(value))
