"""The examples for a machine without TensorFlow: arrays there, weights back, a run as any other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from examples import jax_arrays
from pipelines import evaluate, export, train
from tests.blocked import WITHOUT_TENSORFLOW
from tests.errors import printed_code
from tests.unit.training.tiny import OPTIONS
from tf_dpce.data.manifest import VOCABULARY_FILE, Manifest
from tf_dpce.preprocessing.vocabulary import read_vocabulary
from tf_dpce.training.run_folder import load_run

DEPRECATED = "ignore:__array__ implementation:DeprecationWarning"  # of Keras's save_weights
pytestmark = [pytest.mark.process, pytest.mark.filterwarnings(DEPRECATED)]

FIT = """
import runpy
sys.argv = ["jax_fit", sys.argv[1]]
runpy.run_module("examples.jax_fit", run_name="__main__")
assert not [name for name in sys.modules if name.split(".")[0] == "tensorflow"]
"""
EPOCHS = (40, 8)
CHANGES = {
    "model.dropout": 0.0,
    "stage1.epochs": EPOCHS[0],
    "stage2.epochs": EPOCHS[1],
    "stage2.decay_epochs": "[6]",
}
VECTORS = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)
FLAGS = [
    part for name, value in {**OPTIONS, **CHANGES}.items() for part in (f"--{name}", str(value))
]


@pytest.fixture(scope="module")
def arrays(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jax")
    words, table = read_vocabulary(scenes / VOCABULARY_FILE), folder / "vectors.npz"
    np.savez(table, words=words, vectors=VECTORS[: len(words)])
    options = ["--data", str(scenes), "--out", str(folder / "arrays"), "--vectors", str(table)]
    assert jax_arrays.main([*options, *FLAGS]) == 0
    table.unlink()  # The machine that trains does not have it.
    return folder / "arrays"


@pytest.fixture(scope="module")
def said(arrays: Path, run_program) -> str:
    """What `jax_fit` printed; it left its weights beside the arrays."""
    jax = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    return run_program(WITHOUT_TENSORFLOW + FIT, arrays, **jax).stdout


def test_the_arrays_are_the_training_split(arrays: Path, scenes: Path):
    split = Manifest.load(scenes).splits["train"]
    images, captions, instances = (
        np.load(arrays / f"{name}.npy") for name in ("images", "captions", "instances")
    )
    assert images.dtype == np.uint8 and images.shape == (split.images, 32, 32, 3)
    assert captions.dtype == instances.dtype == np.int32
    assert captions.shape == (split.images, 5, 40) and captions.any(axis=2).all()
    assert sorted(set(instances)) == list(range(split.instances))


def test_what_cannot_be_trained_there_leaves_nothing(scenes: Path, tmp_path: Path, capsys):
    for option, value, code in (
        ("--text.tokenizer", "characters", "config.value"),
        ("--vectors", str(tmp_path / "none.npz"), "vectors.file"),
    ):
        command = ["--data", str(scenes), "--out", str(tmp_path / "arrays"), *FLAGS, option, value]
        assert jax_arrays.main(command) == 1 and list(tmp_path.iterdir()) == []
        assert printed_code(capsys.readouterr().err) == code


def test_both_stages_are_trained_and_the_device_is_named(said: str):
    lines = said.splitlines()
    assert lines[0].startswith("backend jax, device cpu")
    losses = [float(value) for value in re.findall(r" - loss: ([\d.e+-]+)", said)]
    assert len(losses) == sum(EPOCHS)
    for stage, (first, last) in enumerate(((0, EPOCHS[0] - 1), (EPOCHS[0], -1)), start=1):
        assert losses[last] < losses[first]
        (speed,) = re.findall(rf"^stage {stage}: ([\d.]+) images/s", said, re.MULTILINE)
        assert float(speed) > 0


def test_the_weights_make_a_run_that_is_evaluated_and_exported(
    said: str, arrays: Path, scenes: Path, tmp_path: Path, capsys
):
    run, weights = tmp_path / "run", arrays / "model.weights.h5"
    command = ["--from-weights", str(weights), "--data", str(scenes), "--run", str(run)]
    assert train.main([*command, *FLAGS, "--model.output_dim", "16"]) == 1
    assert printed_code(capsys.readouterr().err) == "run.weights" and not run.exists()
    assert train.main([*command, *FLAGS]) == 0
    assert train.main([*command, *FLAGS]) == 1
    assert printed_code(capsys.readouterr().err) == "file.exists"

    # Training began with the word vectors of the arrays and moved them. From a random start the
    # correlation of these 376 numbers would be 0.05, either way.
    rows = load_run(run).model.word_embedding.embeddings.numpy()
    assert np.corrcoef(rows.ravel(), VECTORS[: len(rows)].ravel())[0, 1] > 0.5

    assert evaluate.main(["--run", str(run), "--data", str(scenes), "--split", "train"]) == 0
    (metrics,) = run.glob("metrics-*.json")
    # 48 images with 5 captions each: by chance one of 48 captions would find its image.
    assert json.loads(metrics.read_text())["text_to_image"]["r10"] > 1.5 * 100 * 10 / 48
    models = tmp_path / "models" / "jax"
    assert export.main(["--run", str(run), "--to", str(models)]) == 0
    assert (models / "1" / "saved_model.pb").exists()
