"""One vocabulary (docs/glossary.md): names use no second word for the same thing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

from pipelines.__main__ import VERBS

BANNED = {
    *("picture", "photo", "trunk", "heed", "told", "tell", "settle", "recalling", "joining"),
    *("kept", "squash", "members", "looks", "bank"),
}
# Names of Python itself: of an enumeration, of a stream.
FOREIGN = {"__members__", "tell"}


@cache
def banned(name: str) -> set[str]:
    """Returns the banned words of a name, singular or plural, in snake case or in camel case."""
    words = re.findall(r"[a-z]+|[A-Z][a-z]*", name)
    return {word for word in map(str.lower, words) if {word, word.removesuffix("s")} & BANNED}


def test_identifiers(project_root: Path):
    found = {
        f"{path.relative_to(project_root)}: {name}"
        for folder in ("tf_dpce", "pipelines", "benchmarks", "examples", "tests")
        for path in (project_root / folder).rglob("*.py")
        for name in _suspects(path.read_text())
    }
    assert sorted(found) == []


def _suspects(source: str) -> set[str]:
    """Returns the banned identifiers of a module, which is parsed only if it has such words."""
    words = {word for word in re.findall(r"\w+", source) if banned(word)} - FOREIGN
    return words & set(_identifiers(ast.parse(source))) if words else set()


def test_configuration_keys_and_options():
    parsers = (import_module(f"pipelines.{verb}").build_parser() for verb in VERBS)
    # `train` has an option for every key of the configuration.
    options = {o for parser in parsers for a in parser._actions for o in a.option_strings}
    assert "--stage1.loss.margin" in options
    assert [option for option in sorted(options) if banned(option)] == []


def test_the_words_are_found():
    assert banned("told_of_damage") == {"told"} and banned("Trunks") == {"trunks"}
    assert banned("querybank") == banned("a_word_to_look_up") == set()


def _identifiers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name", "asname"):
            name = getattr(node, field, None)
            if isinstance(name, str):
                yield name
