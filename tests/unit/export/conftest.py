"""A tiny model and its exports, for all tests of this folder. Tests copy what they change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.unit.export.tiny import WORDS, tiny_model
from tf_dpce.evaluation import tta
from tf_dpce.export.publish import write_version
from tf_dpce.export.serving_module import ServingModule
from tf_dpce.export.session_process import SessionModel
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
    """The folder of a version of `model`."""
    return tiny_export / "1"


@pytest.fixture(scope="session")
def stretched(model, tokenizer, tmp_path_factory) -> Path:
    """The same for a model that was trained on stretched images, not verified yet."""
    folder = tmp_path_factory.mktemp("stretched")
    write_version(ServingModule(model, tokenizer, resize="stretch"), folder, "stretched")
    return folder


@pytest.fixture(scope="session")
def half(model, tokenizer, tmp_path_factory) -> Path:
    """The same with weights in float16, not verified yet."""
    folder = tmp_path_factory.mktemp("half")
    rounded = tta.augmented_model(model, "small", tta.TestTimeAugmentation(float16=True))
    write_version(ServingModule(rounded, tokenizer), folder, "half")
    return folder


@pytest.fixture
def version(exported, tmp_path) -> Path:
    """A copy of `exported` to damage."""
    return shutil.copytree(exported, tmp_path / "tiny" / "1")


@pytest.fixture(scope="session")
def served(exported) -> SessionModel:
    """`exported` in a Session, as TF Serving runs it."""
    return SessionModel(exported)
