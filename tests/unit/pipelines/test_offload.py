"""`offload`: packed with TensorFlow, fitted without it, and a run like any other in the end."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipelines import evaluate, export, offload
from tests.blocked import WITHOUT_TENSORFLOW
from tests.scenes import prepare_scenes
from tests.unit.training.tiny import OPTIONS
from tf_dpce.data.input_pipeline import evaluation_captions, evaluation_images
from tf_dpce.data.manifest import Manifest
from tf_dpce.errors import UserError
from tf_dpce.evaluation.embed import Encoders
from tf_dpce.export.encoder import load
from tf_dpce.offload.bundle import load_weights, open_bundle
from tf_dpce.offload.fit import bare_model
from tf_dpce.training.checkpoint import read_progress
from tf_dpce.training.run_folder import load_run, provenance

# Keras hands its variables to NumPy by a method that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

EPOCHS = 12
# Stage 1 asks for cached features and averages its weights; stage 2 has the recipe's losses.
CHANGES = {
    "model.dropout": 0,
    "stage1.epochs": EPOCHS,
    "stage1.schedule": "steps",
    "stage1.weight_decay": 0,
}

# Two whole fits of stage 1; one of stage 2, and one that goes on with it.
PROGRAM = """
import json, shutil
from pathlib import Path

import numpy as np

from pipelines import offload

bundle, short = Path(sys.argv[1]), Path(sys.argv[2])
shutil.copytree(bundle, short)
saved = json.loads((short / "config.json").read_text())
stages = saved["config"]["stage2"]["epochs"]
saved["config"]["stage2"]["epochs"] = 0
(short / "config.json").write_text(json.dumps(saved))
for folder in (bundle, short):
    assert offload.main(["fit", "--bundle", str(folder)]) == 0
saved["config"]["stage2"]["epochs"] = stages
(short / "config.json").write_text(json.dumps(saved))
assert offload.main(["fit", "--bundle", str(short)]) == 0

from tf_dpce.offload.bundle import load_weights, open_bundle
from tf_dpce.offload.fit import bare_model, embed

opened = open_bundle(bundle)
model, val = bare_model(opened.config, opened), opened.split("val")
load_weights(model, bundle / "start.weights.h5", opened.saved["bundle"]["start_sha256"])
images = embed(model.image_encoder, val.pictures, np.float32)
texts = embed(model.text_encoder, val.ids, np.int32)
np.savez(sys.argv[3], images=images, texts=texts)
assert not [name for name in sys.modules if name.split(".")[0] == "tensorflow"]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    prepare_scenes(folder)
    return folder


def pack_arguments(data: Path, out: Path, **changes: object) -> list[str]:
    options = {**OPTIONS, **CHANGES, **{k.replace("__", "."): v for k, v in changes.items()}}
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return ["pack", "--data", str(data), "--out", str(out), *flags]


@pytest.fixture(scope="module")
def packed(data: Path, tmp_path_factory) -> Path:
    """A bundle that is not fitted; nobody writes to it."""
    folder = tmp_path_factory.mktemp("bundles") / "packed"
    assert offload.main(pack_arguments(data, folder)) == 0
    return folder


@pytest.fixture(scope="module")
def fitted(packed: Path, project_root: Path) -> SimpleNamespace:
    """Bundles fitted in a process without TensorFlow, what it said, and its embeddings."""
    folder = packed.parent
    bundle, again = shutil.copytree(packed, folder / "fitted"), folder / "again"
    answer = subprocess.run(
        [
            *(sys.executable, "-c", WITHOUT_TENSORFLOW + PROGRAM),
            *map(str, (bundle, again, folder / "vectors.npz")),
        ],
        cwd=project_root,
        env={
            **os.environ,
            **{"PYTHONPATH": str(project_root), "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
            # What the first fit compiled, the second need not.
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        },
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    vectors = np.load(folder / "vectors.npz")
    return SimpleNamespace(bundle=bundle, again=again, said=answer.stdout, vectors=vectors)


@pytest.fixture(scope="module")
def run(fitted: SimpleNamespace) -> Path:
    folder = fitted.bundle.with_name("run")
    arguments = ["unpack", "--bundle", str(fitted.bundle), "--run", str(folder)]
    assert offload.main(arguments) == 0
    return folder


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def refusal(arguments: list[str], capsys) -> str:
    capsys.readouterr()
    assert offload.main(arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


# --- the way there and back -----------------------------------------------------------------------


def test_a_bundle_holds_what_was_prepared(packed: Path, data: Path):
    bundle, manifest = open_bundle(packed), Manifest.load(data)
    assert bundle.saved["data"] == provenance(manifest)
    # What needs the trunk's features at hand is trained through a frozen trunk.
    assert (bundle.config.stage1.trunk, bundle.config.stage2.trunk) == ("frozen", "trained")
    train, val = bundle.split("train"), bundle.split("val")
    # Crops are cut from pictures half as large again.
    assert (train.pictures.shape, val.pictures.shape) == ((48, 48, 48, 3), (12, 32, 32, 3))
    assert train.pictures.dtype == val.pictures.dtype == np.uint8
    assert (train.shapes == 32).all() and train.shapes.shape == (48, 2)
    rows = list(evaluation_images(data, "val", 32, 12).as_numpy_iterator())
    np.testing.assert_array_equal(val.pictures, rows[0]["image"])
    np.testing.assert_array_equal(val.instances, rows[0]["instance"])
    assert len(val.ids) == len(val.caption_instances) == manifest.splits["val"].captions


def test_the_backend_and_the_speed_are_told(fitted: SimpleNamespace):
    lines = fitted.said.splitlines()
    assert lines[0] == "jax on cpu (cpu), float32"
    told = [line for line in lines if "pictures a second" in line]
    assert told[0].startswith("stage 1, epoch 1: loss ") and "val rsum" in told[0]
    assert len(told) == 2 * (EPOCHS + 2)
    noted = json.loads((fitted.bundle / "fitted.json").read_text())
    assert (noted["backend"], noted["device"]) == ("jax", "cpu (cpu)")
    assert all(stage["pictures_per_second"] > 0 for stage in noted["stages"].values())


def test_the_loss_falls(fitted: SimpleNamespace):
    first = [float(row["loss"]) for row in history(fitted.bundle) if row["stage"] == "1"]
    assert len(first) == EPOCHS and np.mean(first[-3:]) < np.mean(first[:3]) - 0.1


def test_a_second_fit_is_the_same_and_one_goes_on_by_the_stage(fitted: SimpleNamespace):
    assert fitted.said.count("stage 1: fitted before") == 1
    timed = ("epoch_seconds", "validation_seconds")
    one, other = (
        [{k: v for k, v in row.items() if k not in timed} for row in history(folder)]
        for folder in (fitted.bundle, fitted.again)
    )
    assert one == other and len(one) == EPOCHS + 2


def test_start_weights_embed_alike_under_jax_and_tensorflow(
    fitted: SimpleNamespace, packed: Path, data: Path
):
    bundle = open_bundle(packed)
    model = bare_model(bundle.config, bundle)
    load_weights(model, packed / "start.weights.h5", bundle.saved["bundle"]["start_sha256"])
    pictures = evaluation_images(data, "val", 32, 12)
    images = Encoders(model).images(pictures, 12).vectors
    np.testing.assert_allclose(fitted.vectors["images"], images, atol=1e-4)
    captions, count = bundle.split("val").ids, len(bundle.split("val").ids)
    texts = np.asarray(model.text_encoder(captions, training=False))
    np.testing.assert_allclose(fitted.vectors["texts"], texts, atol=1e-4)
    assert count == len(fitted.vectors["texts"])


def test_the_run_that_comes_back_is_like_any_other(
    run: Path, fitted: SimpleNamespace, data: Path, tmp_path: Path
):
    stages = json.loads((fitted.bundle / "fitted.json").read_text())["stages"]
    best = max(stages.values(), key=lambda stage: stage["val_rsum"])
    for number, noted in stages.items():
        stands = read_progress(run / "checkpoints" / f"stage{number}-best.npz")
        assert (stands.epoch, stands.best_rsum) == (noted["epoch"], noted["val_rsum"])
        rsums = [float(r["val_rsum"]) for r in history(run) if r["stage"] == number]
        assert max(rsums) == rsums[noted["epoch"] - 1] == noted["val_rsum"]
    assert evaluate.main(["--run", str(run), "--data", str(data), "--split", "val"]) == 0
    (metrics,) = run.glob("metrics-*-val-all.json")
    assert json.loads(metrics.read_text())["rsum"] == pytest.approx(best["val_rsum"], abs=1e-3)
    assert json.loads((run / "config.json").read_text())["fitted"]["backend"] == "jax"

    assert export.main(["--run", str(run), "--to", str(tmp_path / "drawn")]) == 0
    sentence = ["a red circle"]
    exported = load(tmp_path / "drawn").encode_texts(sentence)
    np.testing.assert_allclose(exported, load(run).encode_texts(sentence), atol=1e-5)


def test_dense_captions_of_the_bundle_are_those_of_the_run(packed: Path, run: Path, data: Path):
    trained = load_run(run)
    texts = evaluation_captions(data, "val", trained.tokenizer, 100)
    ids = np.concatenate([batch["text"] for batch in texts.as_numpy_iterator()])
    np.testing.assert_array_equal(open_bundle(packed).split("val").ids, ids)
    assert Encoders(trained.model).texts(texts, len(ids)).vectors.shape == (len(ids), 8)


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"stage2__loss__negatives": "mined"}, "--stage2.loss.negatives given or batch"),
        ({"model__sampled_negatives": 8}, "give 0 for the exact classifier"),
        ({"stage2__trunk_from": "nowhere"}, "the trunk has no layer nowhere"),
        ({"stage1__batch_size": 64}, "fewer than one batch of 64"),
    ],
)
def test_what_cannot_be_fitted_is_told_by_pack(data, tmp_path, capsys, changes, complaint):
    arguments = pack_arguments(data, tmp_path / "out", **changes)
    assert complaint in refusal(arguments, capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_or_run_that_is_there_is_kept(data, packed, run, fitted, capsys):
    assert "exists already" in refusal(pack_arguments(data, packed), capsys)
    arguments = ["unpack", "--bundle", str(fitted.bundle), "--run", str(run)]
    assert "exists already" in refusal(arguments, capsys)


def test_a_full_disk_is_one_line_and_leaves_nothing(data, tmp_path, capsys, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    arguments = pack_arguments(data, tmp_path / "out")
    assert offload.main(arguments) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == (
        f"error: cannot write {tmp_path / 'out'}: No space left on device: make room there, or "
        "choose another --out"
    )
    assert list(tmp_path.iterdir()) == []


def test_another_backend_than_the_actions_own_is_refused(
    data, packed, tmp_path, capsys, monkeypatch
):
    arguments = ["fit", "--bundle", str(packed)]
    assert "KERAS_BACKEND is tensorflow: fit with jax or torch" in refusal(arguments, capsys)
    monkeypatch.setattr(offload.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert "torch is not installed: pip install -r" in refusal(arguments, capsys)
    for others in (
        pack_arguments(data, tmp_path / "out"),
        ["unpack", "--bundle", str(packed), "--run", str(tmp_path / "run")],
    ):
        assert "KERAS_BACKEND is torch" in refusal(others, capsys)


def test_what_is_no_fitted_bundle_is_told(data, packed, tmp_path, capsys):
    missing = ["fit", "--bundle", str(tmp_path / "missing")]
    assert "is not a bundle" in refusal(missing, capsys)
    unpack = ["unpack", "--run", str(tmp_path / "run"), "--bundle"]
    assert "is not a bundle" in refusal([*unpack, str(data)], capsys)
    assert "stage 1 and 2 is missing" in refusal([*unpack, str(packed)], capsys)
    bundle = shutil.copytree(packed, tmp_path / "other")
    saved = json.loads((bundle / "config.json").read_text())
    saved["bundle"]["format"] = 9
    (bundle / "config.json").write_text(json.dumps(saved))
    assert "is a bundle of format 9" in refusal([*unpack, str(bundle)], capsys)


def test_damage_on_the_way_is_told(fitted, tmp_path, capsys):
    bundle = shutil.copytree(fitted.bundle, tmp_path / "bundle")
    unpack = ["unpack", "--bundle", str(bundle), "--run", str(tmp_path / "run")]
    weights = bundle / "stage2.weights.h5"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "stage2.weights.h5 is damaged" in refusal(unpack, capsys)
    weights.unlink()
    assert "stage2.weights.h5 does not exist" in refusal(unpack, capsys)
    (bundle / "vocabulary.txt").write_text("other\n")
    assert "vocabulary.txt is not the bundle's" in refusal(unpack, capsys)
    assert not (tmp_path / "run").exists()
    for name, damage in (("train-pictures.npy", "cut"), ("train-captions.npz", "altered")):
        contents = bytearray((bundle / name).read_bytes())
        contents[len(contents) // 2] ^= 1
        kept = contents if damage == "altered" else contents[: len(contents) // 2]
        (bundle / name).write_bytes(kept)
        with pytest.raises(UserError, match=f"{name} is damaged"):
            open_bundle(bundle).split("train")
        shutil.copy(fitted.bundle / name, bundle / name)
