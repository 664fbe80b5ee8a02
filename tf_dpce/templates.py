"""Templates of pages and documents, which lie beside the code that fills them."""

from __future__ import annotations

import json
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


@cache
def read_template(package: str, name: str) -> Template:
    """Returns a template of Jinja, which in HTML escapes every text that is not its own.

    Args:
        package: the package in whose folder the file is.
        name: the name of the file.

    Example:
        >>> read_template("tf_dpce.web", "hits.html").name
        'hits.html'
    """
    from jinja2 import Environment, FunctionLoader

    environment = Environment(
        autoescape=name.endswith(".html"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        loader=FunctionLoader(lambda file: files(package).joinpath(file).read_text("utf-8")),
    )
    # Unlike `tojson` it leaves quotes and brackets as they are.
    environment.filters["json"] = partial(json.dumps, ensure_ascii=False)
    return environment.get_template(name)
