"""What all tests share: a quiet TensorFlow and the real data, where it is there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines._verb import TENSORFLOW

# Read once, when TensorFlow and Keras are first imported. The verbs' own settings, so that a test
# in this process computes as a verb does.
for _name, _value in TENSORFLOW.items():
    os.environ.setdefault(_name, _value)
os.environ["KERAS_BACKEND"] = "tensorflow"

PROJECT = Path(__file__).resolve().parents[1]
REAL_DATA = "TF_DPCE_REAL_DATA"


def _real(relative: str) -> Path:
    path = Path(os.environ.get(REAL_DATA, PROJECT / "data" / "raw"), relative)
    if not path.exists():
        pytest.skip(f"the real data is not redistributed: {REAL_DATA} names no folder with it")
    return path


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The checkout: where README.md, tf_dpce/ and pipelines/ are."""
    return PROJECT


@pytest.fixture
def run_program(project_root: Path) -> Callable[..., None]:
    """Runs the text of a program in a process of its own, which must end well."""

    def run(program: str, **environment: str) -> None:
        answer = subprocess.run(
            [sys.executable, "-c", program],
            cwd=project_root,
            env={**os.environ, "PYTHONPATH": str(project_root), **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert answer.returncode == 0, answer.stderr[-3000:]

    return run


@pytest.fixture(scope="session")
def flickr8k_root() -> Path:
    """Flickr8k as its authors laid it out, 8,000 photographs."""
    return _real("flickr8k")


@pytest.fixture(scope="session")
def mobilenet_weights() -> Path:
    """ImageNet weights of MobileNetV2 1.0/224 without its classifier."""
    return _real("weights/mobilenet_v2_1.0_224_no_top_folded.h5")


@pytest.fixture(scope="session")
def glove_vectors() -> Path:
    """300-dimensional GloVe vectors of the words of Flickr8k."""
    return _real("vectors/glove_42B_300d_flickr8k.npz")
