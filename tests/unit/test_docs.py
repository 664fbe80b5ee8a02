"""The documentation keeps its word: commands parse, scripts import what exists, links resolve.

Whole lines of commands are run, on small data, by tests/integration.
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from pathlib import Path

from pipelines.__main__ import VERBS
from tests.pages import PAGES, PROJECT, all_blocks, blocks, calls, lines, text

SHELL = ("bash", "text")


# How many blocks of each page no test can run; each says why.
NOT_RUN = {
    **{"docs/benchmarks.md": 4, "docs/datasets.md": 1, "docs/distributed.md": 6},
    **{"docs/evaluation.md": 1, "docs/experiments.md": 12, "docs/fleet.md": 4},
    **{"docs/peers.md": 2, "docs/performance.md": 7, "docs/questions.md": 2, "docs/scale.md": 1},
    **{"docs/export.md": 2, "docs/runtimes.md": 5, "docs/search.md": 2, "docs/training.md": 6},
    **{"docs/monitoring.md": 1, "docs/tutorial.md": 1, "docs/web.md": 1},
}


def test_what_is_not_run_says_why_and_is_counted():
    reasons = {page: [b.reason for b in all_blocks(page) if b.reason] for page in PAGES}
    assert {page: len(found) for page, found in reasons.items() if found} == NOT_RUN
    # A reason, not a word.
    assert all(len(reason.split()) > 2 for found in reasons.values() for reason in found)


def test_every_command_is_parsed_by_its_program():
    checked = 0
    for page in [*PAGES, "RESULTS.md"]:
        for line in lines("".join(b.text for b in all_blocks(page) if b.language in SHELL)):
            for program, argv in calls(line):
                assert program.build_parser().parse_args(argv), f"{page}: {line}"
                checked += 1
    assert checked > 90


def test_make_has_every_target_that_is_named():
    shell = [b.text for page in PAGES for b in all_blocks(page) if b.language in SHELL]
    found = re.findall(r"^(?:\w+=\S+ )*make (.+)$", "".join(shell), re.MULTILINE)
    assert {"demo", "test"} <= set(found)
    for line in sorted(set(found)):
        answer = subprocess.run(
            ["make", "--dry-run", *shlex.split(line, comments=True)],
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )
        assert answer.returncode == 0, f"{line}: {answer.stderr}"


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

    table = text("docs/export.md").partition("## Hostile input")[2]
    rows = re.findall(r"^\| (\d) \| (.+?) \|", table, re.MULTILINE)
    assert [(int(code), reason) for code, reason in rows] == sorted(REASONS.items())
