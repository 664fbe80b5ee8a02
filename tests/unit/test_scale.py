"""The plan of docs/scale.md follows from the unit costs that it states."""

from __future__ import annotations

import ast
import operator
import re
from pathlib import Path

import pytest

OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
COLUMNS = (10**6, 10**8, 10**9)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def value(formula: str, names: dict[str, float]) -> float:
    """What a formula of numbers, names, + - * / and ** gives."""

    def of(node: ast.expr) -> float:
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](of(node.left), of(node.right))
        return names[node.id] if isinstance(node, ast.Name) else node.value

    return of(ast.parse(formula, mode="eval").body)


def number(cell: str) -> float:
    return float(cell.replace(",", "").replace("$", ""))


def rounded(found: float) -> float:
    return float(f"{found:.2g}")


@pytest.fixture(scope="module")
def lines(project_root: Path) -> list[str]:
    return (project_root / "docs" / "scale.md").read_text().splitlines()


def test_every_number_of_the_plan_is_what_its_formula_gives(lines: list[str]):
    costs = [cells(line) for line in lines if re.match(r"\| `[a-z_0-9]+` \| [$\d]", line)]
    names = {cost[0].strip("`"): number(cost[1]) for cost in costs}
    plan = [cells(line) for line in lines if re.match(r"\| [^|`]+ \| `", line)]
    assert len(names) >= 10 and len(plan) >= 12
    used = set()
    for what, formula, *results in plan:
        formula = formula.strip("`")
        for images, result in zip(COLUMNS, results, strict=True):
            wanted = rounded(value(formula, names | {"images": images}))
            assert number(result) == wanted, f"{what}, {images:,} images: {wanted:,g}"
        used |= {node.id for node in ast.walk(ast.parse(formula)) if isinstance(node, ast.Name)}
    assert used == {*names, "images"}, "each cost is used, and each that is used is stated"
    # Where each number comes from: a command that measures it, or a source with its date.
    for cost in costs:
        assert re.search(r"python -m |chosen|20\d\d-\d\d-\d\d", cost[-1]), cost
