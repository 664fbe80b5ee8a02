"""Mistakes with runtimes, found before anything is loaded. LiteRT comes with the project's pins."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import tf_dpce
from tests.errors import raises
from tf_dpce.export.versions import version_digest
from tf_dpce.files import sha256_file
from tf_dpce.runtimes import engines
from tf_dpce.runtimes.manifest import RuntimeManifest
from tf_dpce.search.embedding import records


@pytest.fixture
def version(tiny_export: Path, tmp_path: Path) -> Path:
    """A copy of an export with a manifest and files that are no models."""
    version = shutil.copytree(tiny_export / "1", tmp_path / "tiny" / "1")
    folder = version / "runtimes"
    files = ("litert/image.tflite", "litert/text.tflite", "words.txt")
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("dog\n")
    RuntimeManifest(
        model=version_digest(version),
        dimension=16,
        image_size=32,
        resize="stretch",
        max_bytes=10**6,
        max_pixels=10**6,
        max_length=6,
        lowercase=True,
        pieces=False,
        inferred=0,
        positions=[6] * 7,
        precision="float32",
        examples={},
        files={name: sha256_file(folder / name) for name in files},
    ).write(version)
    return version


def test_a_model_that_was_not_exported_for_a_runtime(tiny_export: Path, tiny_run: Path):
    for path, wrong in ((tiny_export, tiny_export / "1"), (tiny_run, tiny_run)):
        with raises("runtimes.missing", wrong):
            tf_dpce.load(path, runtime="litert")


def test_another_runtime_than_those_exported(version: Path, monkeypatch):
    monkeypatch.setitem(engines.ENGINES, "onnx", engines.ENGINES["litert"])
    path = version / "runtimes" / "manifest.json"
    value = json.loads(path.read_text())
    value["files"] = {"words.txt": value["files"]["words.txt"]}
    path.write_text(json.dumps(value))
    with raises("runtimes.missing", version):
        tf_dpce.load(version, runtime="onnx")


def test_a_runtime_that_is_not_installed_or_not_known(version: Path, monkeypatch):
    absent = replace(engines.ENGINES["litert"], module="not_installed")
    monkeypatch.setitem(engines.ENGINES, "litert", absent)
    with raises("runtimes.package") as caught:
        tf_dpce.load(version, runtime="litert")
    assert "ai-edge-litert" in str(caught.value)
    with raises("runtimes.name"):
        tf_dpce.load(version, runtime="tensorrt")
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with raises("runtimes.package"):
        tf_dpce.load(version)
    with raises("runtimes.package"):
        next(records.records("train-00000-of-00001.tfrecord"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: value | {"dimension": "16"},
        lambda value: value | {"model": "0" * 64},
        lambda value: {key: value[key] for key in value if key != "positions"},
        lambda value: [],
    ],
)
def test_a_manifest_that_is_damaged_or_of_another_model(version: Path, damage):
    path = version / "runtimes" / "manifest.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with raises("runtimes.damaged", path):
        tf_dpce.load(version, runtime="litert")


def test_files_that_are_not_those_of_the_manifest(version: Path):
    encoder = tf_dpce.load(version, runtime="litert")
    model, words = (version / "runtimes" / name for name in ("litert/text.tflite", "words.txt"))
    # The digest is right: no model at all.
    with raises("runtimes.damaged", model):
        encoder.encode_texts(["dog"])
    model.write_text("changed")
    with raises("runtimes.damaged", model):
        encoder.encode_texts(["dog"])
    words.unlink()
    with raises("runtimes.damaged", words):
        tf_dpce.load(version, runtime="litert").encode_texts(["dog"])
