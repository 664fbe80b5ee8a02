"""Counts lines of code and compares them with the limits of `limits.toml`; `make size`.

Blank lines, comments and docstrings do not count, so that explaining costs nothing.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
import tomllib
from collections import Counter
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
NO_CODE = (
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
    *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_lines(source: str) -> int:
    """Returns the number of lines of code in Python source."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            lines.difference_update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def main() -> int:
    """Prints the sizes and returns 1 if one exceeds its limit."""
    limits = tomllib.loads((PROJECT / ".ci" / "limits.toml").read_text())
    listed = subprocess.check_output(["git", "ls-files", "*.py"], cwd=PROJECT, text=True)
    sizes, packages, too_long = Counter(), Counter(), []
    for name in listed.splitlines():
        source, parts = (PROJECT / name).read_text(), Path(name).parts
        counted = next((k for k, roots in limits["folders"].items() if parts[0] in roots), None)
        if counted is None:
            continue
        lines = code_lines(source)
        sizes[counted] += lines
        packages["/".join(parts[: 3 if counted == "tests" else 2][: len(parts) - 1])] += lines
        if counted == "library" and source.count("\n") > limits["module"]:
            too_long.append(f"{name} has more than {limits['module']} lines")
    sizes["README.md"] = (PROJECT / "README.md").read_text().count("\n")
    for package, lines in sorted(packages.items()):
        print(f"{lines:7,} {package}")
    for name, limit in limits["lines"].items():
        print(f"{sizes[name]:7,} of {limit:,} {name}")
        if sizes[name] > limit:
            too_long.append(f"{name} has {sizes[name] - limit} lines too many: see .ci/limits.toml")
    print(*too_long, sep="\n", end="\n" if too_long else "")
    return bool(too_long)


if __name__ == "__main__":
    sys.exit(main())
