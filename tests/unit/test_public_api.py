"""The public names: what is listed exists, and nothing heavy is imported before it is used."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

import tf_dpce

HEAVY = ("tensorflow", "keras", "jax", "official", "faiss", "matplotlib")
# Ends a program with the heavy modules that it imported.
IMPORTED = f"import sys; print(sorted({set(HEAVY)} & set(sys.modules)))"


def test_every_public_name_is_listed_for_type_checkers_and_resolved():
    (block,) = (
        node
        for node in ast.parse(Path(tf_dpce.__file__).read_text()).body
        if isinstance(node, ast.If)
    )
    listed = {alias.name: node.module for node in block.body for alias in node.names}
    assert sorted(listed) == sorted(tf_dpce.__all__)
    for name, module in listed.items():
        found = getattr(tf_dpce, name)
        assert found.__name__.rpartition(".")[2] == name
        assert getattr(found, "__module__", module) == module
    assert set(tf_dpce.__all__) <= set(dir(tf_dpce))
    with pytest.raises(AttributeError):
        tf_dpce.no_such_name  # noqa: B018


@pytest.fixture
def imported(run_program) -> Callable[[str], list[str]]:
    """Returns the heavy modules that a program imports in a process of its own."""

    def run(program: str) -> list[str]:
        said = run_program(f"{program}\n{IMPORTED}").stdout
        return ast.literal_eval(said.splitlines()[-1])

    return run


def test_the_library_its_configuration_its_readers_and_every_help_import_nothing_heavy(imported):
    program = """
import contextlib, io
import tf_dpce, tf_dpce.config, tf_dpce.datasets
from benchmarks.__main__ import build_parser
from pipelines.__main__ import VERBS, main
dir(tf_dpce)
for verb in VERBS:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main([verb, "--help"])
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    build_parser().parse_args(["--help"])
"""
    assert imported(program) == []


@pytest.mark.process
@pytest.mark.sentinel
def test_loading_an_encoder_imports_neither_the_trainer_nor_what_draws(
    imported, tiny_export: Path, tiny_run: Path
):
    program = f"""
import sys, tf_dpce
sys.modules["matplotlib"] = None
encoder = tf_dpce.load({str(tiny_export)!r})
assert encoder.encode_texts(["a dog"]).shape[0] == 1
def loaded(*packages):
    return [name for name in sys.modules if name.startswith(packages)]
# Keras itself imports matplotlib if it is installed; nothing of ours may need it.
drawing = ("tf_dpce.drawing", "tf_dpce.ablations", "faiss")
assert not loaded("tf_dpce.training", *drawing)
tf_dpce.load({str(tiny_run)!r})
trainer = (f"tf_dpce.training.{{name}}" for name in ("train", "stage", "callbacks", "resume"))
assert not loaded(*trainer, *drawing)
"""
    assert imported(program)
