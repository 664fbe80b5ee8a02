"""The proofs of the promises in docs/architecture.md are all there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

LEAST = 40


def test_every_promise_has_a_test_that_exists(project_root: Path):
    page = (project_root / "docs" / "architecture.md").read_text()
    promises = page.split("## Promises and their proofs", 1)[1]
    proofs = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", promises)
    rows = [line for line in promises.splitlines() if line.startswith("| ") and "**" not in line]
    # All rows but the head name one.
    assert len(proofs) == len(rows) - 1 >= LEAST
    missing = [
        f"{file}::{name}" for file, name in proofs if name not in _tests(project_root / file)
    ]
    assert missing == []


def _tests(path: Path) -> set[str]:
    if not path.exists():
        return set()
    return {node.name for node in ast.parse(path.read_text()).body if hasattr(node, "name")}
