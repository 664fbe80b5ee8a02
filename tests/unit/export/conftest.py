"""The tiny model and its export, for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.export.tiny import WORDS, tiny_model
from tf_dpce.export.publish import export_model
from tf_dpce.models.dual_path import DualPath
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer


@pytest.fixture(scope="session")
def model() -> DualPath:
    return tiny_model()


@pytest.fixture(scope="session")
def tokenizer() -> CaptionTokenizer:
    return CaptionTokenizer(WORDS, max_length=6, lowercase=True)


@pytest.fixture(scope="session")
def exported(tiny_export: Path) -> Path:
    """The folder of a version of `model`. Tests that change it work on a copy."""
    return tiny_export / "1"


@pytest.fixture(scope="session")
def squashing(model, tokenizer, tmp_path_factory) -> Path:
    """The same of a model that squashes images."""
    folder = tmp_path_factory.mktemp("saved_models") / "tall"
    return export_model(model, tokenizer, folder, squash=True)
