"""What MkDocs does not do for this site by itself: pages from beside docs/, the table of keys."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
from docstring_parser import parse
from mkdocs.structure.files import File, Files

PROJECT = Path(__file__).resolve().parents[1]
BESIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "RESULTS.md", "saved_models/README.md")
LINK = re.compile(r"\[([^\]]+)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
KEYS = "<!-- keys -->"


class ExampleSections(griffe.Extension):
    """Has the section `Example:` of our docstrings shown as code: Griffe knows the plural alone."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Renames the section in the docstring of an object."""
        if obj.docstring:
            text = obj.docstring.value
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that lie beside docs/."""
    for name in BESIDE:
        source = str(PROJECT / name)
        files.append(File.generated(config, name, abs_src_path=source))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Leads links to pages of the site, and fills in the table of keys."""
    here = page.file.src_uri
    folder = os.path.dirname(here if here in BESIDE else f"docs/{here}")

    def lead(link: re.Match[str]) -> str:
        target = os.path.normpath(os.path.join(folder, link[2]))
        if target not in BESIDE and not target.startswith("docs/"):
            # A file of the checkout that is no page of the site.
            return link[1] if link[1].startswith("`") else f"`{target}`"
        uri = os.path.relpath(target.removeprefix("docs/"), os.path.dirname(here) or ".")
        return f"[{link[1]}]({uri}{link[3] or ''})"

    if KEYS in markdown:
        markdown = markdown.replace(KEYS, "\n".join(key_tables()))
    # GitHub wants a bar within code escaped in tables, Python-Markdown shows the backslash.
    markdown = re.sub(r"`[^`\n]+`", lambda code: code[0].replace("\\|", "|"), markdown)
    return LINK.sub(lead, markdown)


def key_tables() -> Iterator[str]:
    """Yields the lines of a table for each section of the configuration."""
    # The library need not be installed, nor the working folder be the checkout.
    sys.path.insert(0, str(PROJECT))
    from tf_dpce.config import Config

    yield from _table(Config, "")
    for item in dataclasses.fields(Config):
        if item.name != "stage2" and dataclasses.is_dataclass(item.default_factory):
            yield from _table(item.default_factory, item.name)


def _table(section: type, name: str) -> Iterator[str]:
    """Yields the table of a section and of the sections within it."""
    documented = parse(section.__doc__)
    meanings = {item.arg_name: item.description for item in documented.params}
    stage = name.startswith("stage1")
    yield f"\n## {'The whole run' if not name else name.replace('stage1', 'stageN')}\n"
    yield f"{documented.short_description}{' N is 1 or 2.' if stage else ''}\n"
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    inner = []
    for item in dataclasses.fields(section):
        key = ".".join(filter(None, (name.replace("stage1", "stageN"), item.name)))
        if dataclasses.is_dataclass(item.default_factory):
            inner.append((item.default_factory, f"{name}.{item.name}" if name else ""))
            continue
        made = item.default_factory is not dataclasses.MISSING
        default = item.default_factory() if made else item.default
        shown = default if isinstance(default, str) else json.dumps(default)
        meaning = " ".join(meanings[item.name].split())
        yield f"| `{key}` | `{item.type}` | `{shown}` | {meaning} |"
    for within, path in inner:
        if path:
            yield from _table(within, path)
