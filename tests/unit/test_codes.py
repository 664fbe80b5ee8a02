"""Every code of a mistake is explained in docs/troubleshooting.md, and nothing else is."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

CODE = re.compile(r"[a-z0-9_]+\.[a-z0-9_]+")
FILES = (".npy",)


def test_the_page_explains_each_code_once(project_root: Path):
    page = (project_root / "docs" / "troubleshooting.md").read_text()
    explained = Counter(re.findall(r"^\| `([a-z0-9_.]+)` \| .+\. \| .+\. \|$", page, re.MULTILINE))
    trees = {str(path): ast.parse(path.read_text()) for path in _sources(project_root)}
    raised = {code: place for path, tree in trees.items() for code, place in _raised(path, tree)}
    assert {code: raised[code] for code in set(raised) - set(explained)} == {}, "each a literal"
    # Functions that make mistakes of several kinds are handed their codes, as literals too.
    literals = set().union(*map(_code_literals, trees.values()))
    assert set(explained) - literals == set()
    assert set(explained.values()) == {1}


def _sources(root: Path) -> list[Path]:
    return [
        path
        for folder in ("tf_dpce", "pipelines", "benchmarks", "examples")
        for path in sorted((root / folder).rglob("*.py"))
    ]


def _raised(path: str, tree: ast.Module) -> list[tuple[str, str]]:
    """Returns the codes of `UserError(...)` in a module, and where each is."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) == "UserError" and node.args:
            code = node.args[0]
            if isinstance(code, ast.Name) and code.id == "code":
                # A function of the module that is handed its codes: they are literals elsewhere.
                found += [(literal, path) for literal in _code_literals(tree)]
            else:
                found.append((_literal(code), f"{path}:{node.lineno}"))
    return found


def _code_literals(tree: ast.AST) -> set[str]:
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    texts = {value for value in constants if isinstance(value, str)}
    return {text for text in texts if CODE.fullmatch(text) and not text.endswith(FILES)}


def _name(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def _literal(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) else ast.unparse(node)
