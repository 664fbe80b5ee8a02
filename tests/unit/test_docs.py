"""The documentation keeps its word: commands parse, scripts import what exists, links resolve.

Whole lines of commands are run, on small data, by tests/integration.
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from pipelines.__main__ import VERBS
from tests.pages import PAGES, PROJECT, VERB, blocks, commands, text


def test_every_verb_command_parses():
    checked = 0
    for page in PAGES:
        for line in commands(page, VERB):
            verb, *argv = shlex.split(line)[2:]
            # A placeholder stands for options that the page explains.
            if "OPTIONS" in argv or "$@" in argv:
                continue
            assert import_module(verb).build_parser().parse_args(argv), f"{page}: {line}"
            checked += 1
    assert checked > 30


def test_make_has_every_target_that_is_named():
    lines = {line for page in PAGES for line in commands(page, "make ")}
    assert {"make demo", "make test"} <= lines
    for line in sorted(lines):
        answer = subprocess.run(
            ["make", "--dry-run", *shlex.split(line)[1:]],
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )
        assert answer.returncode == 0, f"{line}: {answer.stderr}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_a_python_block_compiles_and_uses_names_that_exist(page: str):
    for source in blocks(page, "python"):
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    import_module(alias.name)
            if isinstance(node, ast.ImportFrom):
                module = import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{page}: {node.module}.{alias.name}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id == "tf_dpce":
                    assert hasattr(import_module("tf_dpce"), node.attr), f"{page}: {node.attr}"


def test_the_fit_script_of_the_readme_has_at_most_fifteen_statements():
    (script,) = (block for block in blocks("README.md", "python") if "model.fit(" in block)
    assert sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(script))) <= 15


def _anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub forms them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    plain = (
        re.sub(r"[^\w\- ]", "", re.sub(r"\[(.+?)\]\(.*?\)", r"\1", h)).lower() for h in headings
    )
    return {heading.replace(" ", "-") for heading in plain}


def test_every_link_into_the_repository_leads_somewhere():
    checked = 0
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
            if "://" in target:
                continue
            path, _, anchor = target.partition("#")
            file = ((PROJECT / page).parent / path).resolve() if path else PROJECT / page
            assert file.exists(), f"{page}: {target}"
            if anchor:
                assert anchor in _anchors(file), f"{page}: {target}"
            checked += 1
    assert checked > 50


def test_every_page_is_in_the_index():
    index = text("docs/index.md")
    for page in PAGES:
        if page.startswith("docs/") and page != "docs/index.md":
            assert f"({page.removeprefix('docs/')})" in index, page


def test_the_table_of_verbs_is_complete():
    rows = re.findall(r"^\| `(\w+)` \|", text("docs/reference/commands.md"), re.MULTILINE)
    assert rows == list(VERBS)


def test_the_status_codes_are_those_of_the_library():
    from tf_dpce.preprocessing.status import REASONS

    page = text("docs/reference/commands.md")
    rows = re.findall(r"^\| (\d) \| (.+?)(?: \(.+\))? \|$", page, re.MULTILINE)
    assert [(int(code), reason) for code, reason in rows if int(code) in REASONS][-7:] == sorted(
        REASONS.items()
    )
