"""The docstrings of the public names say what goes in and out, and show it."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from docstring_parser import DocstringStyle, parse

PACKAGES = (
    "tf_dpce",
    *(f"tf_dpce.{name}" for name in ("losses", "models", "evaluation", "search", "serving")),
)
NAMES = [f"{package}.{n}" for package in PACKAGES for n in import_module(package).__all__]
# Of Keras's own functions, and of dicts that are no arrays, nobody needs a shape.
ARRAY = re.compile(r"ndarray|Tensor|Any$")
NO_ARRAYS = {"custom_objects"}


def public() -> dict[str, Any]:
    """The public classes and functions by name, and what they return of our own."""
    found = {name: named(name) for name in [*NAMES, "tf_dpce.data.pairs.PairSplit"]}
    return {name: each for name, each in found.items() if not inspect.ismodule(each)}


def named(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def methods(owner: Any) -> Iterator[tuple[str, Any]]:
    """The public methods and properties of a class, and those of its bases in this library."""
    bases = owner.__mro__ if inspect.isclass(owner) else ()
    for base in (base for base in bases if base.__module__.startswith("tf_dpce")):
        for name, method in vars(base).items():
            method = getattr(method, "__func__", method)
            is_property = isinstance(method, (property, cached_property))
            if not name.startswith("_") and (is_property or inspect.isfunction(method)):
                yield f"{base.__name__}.{name}", method


def lacking(found: Any) -> Iterator[str]:
    """What the docstring of a class, a function, a method or a property does not say."""
    called = found
    if inspect.isclass(found):
        # What a dataclass takes are its attributes, and nobody calls a protocol.
        is_called = not (is_dataclass(found) or getattr(found, "_is_protocol", False))
        called = vars(found).get("__init__") if is_called else None
    text = inspect.cleandoc(found.__doc__ or "")
    if not text:
        yield "anything"
    elif inspect.isfunction(called):
        yield from lacking_in(text, called)


def lacking_in(text: str, called: Callable[..., Any]) -> Iterator[str]:
    parts = parse(text, DocstringStyle.GOOGLE)
    said = {p.arg_name.strip("*"): p.description for p in parts.params if p.args[0] == "param"}
    taken = dict(inspect.signature(called).parameters)
    # What is handed on as options may be explained under its own names.
    options = [name for name, p in taken.items() if p.kind is p.VAR_KEYWORD]
    more = list(said.keys() - taken.keys())
    yield from (f"what is taken: no {name}" for name in more if not options)
    explained = {"self", "cls", *said, *(options if more else ())}
    yield from (f"what {name} is" for name in taken if name not in explained)
    for name in said.keys() & taken.keys() - NO_ARRAYS - set(options):
        if ARRAY.search(str(taken[name].annotation)) and "[" not in said[name]:
            yield f"the shape of {name}"
    gives = str(called.__annotations__.get("return", None))
    if gives != "None" and not (parts.returns or re.match("Returns|Yields", text)):
        yield "what is returned"
    source = ast.parse(textwrap.dedent(inspect.getsource(called)))
    errors = [n.exc for n in ast.walk(source) if isinstance(n, ast.Raise)]
    raised = {ast.unparse(error.func) for error in errors if isinstance(error, ast.Call)}
    yield from (f"when {n} is raised" for n in raised - {r.type_name for r in parts.raises})


def test_they_say_what_is_taken_and_given_and_what_may_go_wrong():
    things = [(n, each) for name, found in public().items() for n, each in methods(found)]
    everything = {**public(), **dict(things)}
    faults = [f"{n} lacks {fault}" for n, each in everything.items() for fault in lacking(each)]
    assert faults == []
    assert len(everything) > 80


@pytest.mark.parametrize("name", NAMES)
def test_each_has_an_example(name: str):
    found = named(name)
    # The examples of a module are those of its names.
    assert inspect.ismodule(found) or ">>> " in found.__doc__


def good(a: np.ndarray, *, b: int = 1) -> int:
    """Adds.

    Args:
        a: `[N]`.
        b: a number.

    Returns:
        A number.
    """


def bad(a: np.ndarray, c: int) -> int:
    """Adds.

    Args:
        a: an array.
        b: a number.
    """
    raise ValueError("always")


def test_what_is_lacking_is_found():
    assert list(lacking(good)) == [] and list(lacking(lambda: 1)) == ["anything"]
    taken = ["what is taken: no b", "what c is", "the shape of a"]
    assert list(lacking(bad)) == [*taken, "what is returned", "when ValueError is raised"]
