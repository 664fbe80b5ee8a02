"""A tiny model and its prepared data, for all tests of evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.export.tiny import WORDS, tiny_data, tiny_model
from tf_dpce.models.dual_path import DualPath
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer


@pytest.fixture(scope="session")
def model() -> DualPath:
    return tiny_model()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images and six captions in each split."""
    folder = tmp_path_factory.mktemp("data")
    tiny_data(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> CaptionTokenizer:
    return CaptionTokenizer(WORDS, max_length=6, lowercase=True)
