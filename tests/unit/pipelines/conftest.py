"""A tiny run for the verbs that read one, its export for those that embed and search."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_export(tmp_path_factory) -> Path:
    """The folder NAME of a model with one version; nobody writes to it."""
    from tests.unit.export.tiny import WORDS, tiny_model
    from tf_dpce.export.publish import export_model
    from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

    folder = tmp_path_factory.mktemp("saved_models") / "tiny"
    words = CaptionTokenizer(WORDS, max_length=6, lowercase=True)
    export_model(tiny_model(), words, folder, {"data": "drawn", "seed": 0})
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A tiny run; nobody writes to it."""
    from tests.unit.export.tiny import tiny_run

    return tiny_run(tmp_path_factory.mktemp("runs") / "drawn")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it to write to."""
    return shutil.copytree(trained, tmp_path / "drawn")
