"""What all tests share: a quiet TensorFlow, what is expensive to make, and the real data.

Fixtures that take seconds are built once for all workers of pytest-xdist: `build_once` keeps them
in a folder that the workers share. Nobody writes to what they return; tests that must, copy it.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from pipelines._verb import TENSORFLOW
from tf_dpce.logging import logger
from tf_dpce.native_noise import LEVEL

# Read once, when TensorFlow and Keras are first imported. The verbs' own settings, so that a test
# in this process computes as a verb does; but nothing filters what TensorFlow writes there.
for _name, _value in {**TENSORFLOW, LEVEL: "3"}.items():
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files that start processes first, so that no worker ends long after the others."""
    slowest = {item.path for item in items if item.get_closest_marker("process")}
    items.sort(key=lambda item: item.path not in slowest)


# === Built once ===


@pytest.fixture(scope="session")
def build_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns `build(name, make)`: the folder `name`, filled by `make(folder)` in one worker."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Of all workers; without them the parent belongs to other runs of pytest as well.
        folder = folder.parent

    def build(name: str, make: Callable[[Path], object]) -> Path:
        # A folder around it, so that it has no neighbours.
        around, done = folder / f"built-{name}", folder / f"{name}.done"
        with FileLock(folder / f"{name}.lock"):
            if not done.exists():
                around.mkdir(exist_ok=True)
                make(around / name)
                done.touch()
        return around / name

    return build


@pytest.fixture(scope="session")
def scenes(build_once: Callable[..., Path]) -> Path:
    """A few drawn scenes, prepared; runs leave their feature caches in the folder."""
    from tests.scenes import prepare_scenes

    return build_once("scenes", prepare_scenes)


@pytest.fixture(scope="session")
def finished(scenes: Path, build_once: Callable[..., Path]) -> Path:
    """A tiny run of both stages on the scenes, as `train` leaves it."""
    from tests.unit.training.tiny import run_tiny

    def train(folder: Path) -> None:
        assert run_tiny(scenes, folder) == 0

    return build_once("finished", train)


@pytest.fixture(scope="session")
def tiny_run(build_once: Callable[..., Path]) -> Path:
    """A run of a tiny model of ten words; its weights come from no training."""
    from tests.unit.export import tiny

    return build_once("drawn", tiny.tiny_run)


@pytest.fixture(scope="session")
def tiny_export(build_once: Callable[..., Path]) -> Path:
    """The folder NAME of the export of that model, with version 1."""
    from tests.unit.export.tiny import WORDS, tiny_model
    from tf_dpce.export.publish import export_model
    from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

    def export(folder: Path) -> None:
        tokenizer = CaptionTokenizer(WORDS, max_length=6, lowercase=True)
        export_model(tiny_model(), tokenizer, folder, {"data": "drawn", "seed": 0})

    return build_once("tiny", export)


# === The log ===


@pytest.fixture(autouse=True)
def log_of_the_library() -> None:
    """The library's log as no program has set it up; a verb that ran in this process did."""
    logger.handlers = [logging.NullHandler()]
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


# === Processes ===


@pytest.fixture(scope="session")
def run_program() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program, its text or the name of its module, in a process that must end well."""

    def run(
        program: str, *arguments: object, given: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        option = "-m" if program.startswith("tests.") else "-c"
        answer = subprocess.run(
            [sys.executable, option, program, *map(str, arguments)],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
            input=given,
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert answer.returncode == 0, answer.stderr[-3000:]
        return answer

    return run


# === Real data ===


@pytest.fixture(scope="session")
def flickr8k_root() -> Path:
    """Flickr8k as its authors laid it out, 8,000 photographs."""
    return _real("flickr8k")


@pytest.fixture(scope="session")
def mobilenet_weights() -> Path:
    """ImageNet weights of MobileNetV2 1.0/224 without its classifier."""
    return _real("weights/mobilenet_v2_1.0_224_no_top_folded.h5")


@pytest.fixture(scope="session")
def lite_weights() -> dict[int, Path]:
    """ImageNet weights of EfficientNet-Lite 0 and 2, with their classifiers, by number."""
    return {number: _real(f"weights/efficientnet_lite{number}_imagenet.npz") for number in (0, 2)}


@pytest.fixture(scope="session")
def glove_vectors() -> Path:
    """300-dimensional GloVe vectors of the words of Flickr8k."""
    return _real("vectors/glove_42B_300d_flickr8k.npz")
