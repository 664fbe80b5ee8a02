"""Exports for ONNX Runtime, OpenVINO and LiteRT: written, compared, and used without TensorFlow."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import keras
import numpy as np
import pytest
from PIL import Image

import tf_dpce
from pipelines import embed, export, index
from tests.blocked import only_with
from tests.errors import raises
from tests.unit.export.tiny import CONFIG, WORDS, tiny_model
from tests.unit.preprocessing.test_oddities import ODDITIES
from tests.unit.serving.servers import free_port
from tests.unit.web.pages import search, shown_ids
from tf_dpce.config import from_dict, to_dict
from tf_dpce.export.publish import export_model
from tf_dpce.export.serving_module import ServingModule
from tf_dpce.models import fuse_batch_norm
from tf_dpce.models.build import build_model
from tf_dpce.models.expansion import expanded
from tf_dpce.models.shortening import shortened_model
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.runtimes.onnx_graph import write_onnx
from tf_dpce.runtimes.write import write_runtimes

RUNTIMES = ("onnx", "openvino", "litert")
TOLERANCE = 1e-4
CAPTIONS = ["A dog on the grass.", "two cats sleep", "", "unknown", "狗 naïve", "a " * 40]


def tokenizer() -> CaptionTokenizer:
    return CaptionTokenizer(WORDS, max_length=6, lowercase=True)


@pytest.fixture(scope="module")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder NAME of an export for all runtimes, made by the verb."""
    folder = tmp_path_factory.mktemp("runtimes") / "tiny"
    assert export.main(["--run", str(tiny_run), "--to", str(folder), "--format", *RUNTIMES]) == 0
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Eight images in a folder, and a file that is none."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (4, 5, 3), np.uint8)
        Image.fromarray(pixels).resize((120, 90)).save(folder / f"{number}.jpg", quality=90)
    (folder / "broken.jpg").write_bytes((folder / "0.jpg").read_bytes()[:-300])
    return folder


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_answers_as_tensorflow_does(exported: Path, runtime: str):
    wanted, found = tf_dpce.load(exported), tf_dpce.load(exported, runtime=runtime)
    assert found.dimension == wanted.dimension
    contents = [*ODDITIES.values(), b"", b"no image"]
    for kind, items in (("images", contents), ("texts", CAPTIONS), ("images", []), ("texts", [""])):
        expected, codes = wanted.encode_with_status(kind, items)
        embeddings, statuses = found.encode_with_status(kind, items)
        np.testing.assert_array_equal(statuses, codes)
        np.testing.assert_allclose(embeddings, expected, atol=TOLERANCE)
    with raises("encode.unusable"):
        found.encode_texts([""])


def without_tensorflow(root: Path, verb: str, options: list[str]) -> str:
    """A verb where only the list for machines without TensorFlow is installed; it names imports."""
    return f"""{only_with(root / "requirements-light.txt")}
from importlib import import_module
status = import_module("pipelines.{verb}").main({options})
print(*sys.modules, file=sys.stderr)
sys.exit(status)"""


def test_search_find_embed_and_web_do_without_tensorflow(
    exported: Path, images: Path, tmp_path: Path, project_root: Path, run_program
):
    model, embeddings, built = str(exported), str(tmp_path / "embeddings"), str(tmp_path / "index")
    given = ["--model", model, "--images", str(images)]
    assert embed.main([*given, "--out", embeddings]) == 0
    assert index.main(["--embeddings", embeddings, "--out", built]) == 0
    searcher = tf_dpce.Searcher(built, model)
    expected = [hit.score for hit in searcher.by_text("two cats", top=8)]
    for verb, options in (
        ("search", ["--index", built, "--model", model, "--text", "two cats", "--top", "8"]),
        ("find", [str(images), "two cats", "--model", model, "--top", "8"]),
        ("embed", [*given, "--out", f"{embeddings}-onnx"]),
    ):
        command = [*options, "--runtime", "onnx", *(["--json"] if verb != "embed" else [])]
        program = without_tensorflow(project_root, verb, command)
        done = run_program(program, XDG_CACHE_HOME=str(tmp_path / "cache"))
        if verb == "search":
            # They take as long as a quarter of a cold search by a text.
            assert not {"PIL", "pandas"} & set(done.stderr.split())
        if verb != "embed":
            hits = json.loads(done.stdout)["hits"]
            np.testing.assert_allclose([hit["score"] for hit in hits], expected, atol=2e-3)
    one, other = (np.load(f"{embeddings}{end}/images-00000.npy") for end in ("", "-onnx"))
    np.testing.assert_allclose(other, one, atol=TOLERANCE)
    options = ["--index", built, "--model", model, "--runtime", "onnx", "--port", str(free_port())]
    page = subprocess.Popen(
        [sys.executable, "-c", without_tensorflow(project_root, "web", options)],
        cwd=project_root,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address = page.stdout.readline().split()[-1]
        with httpx.Client(base_url=address, timeout=60) as client:
            ids = shown_ids(search(client, "?q=two+cats"))
        assert ids == [hit.id for hit in searcher.by_text("two cats", top=8)]
        page.send_signal(signal.SIGTERM)
        assert page.wait(60) == 0
    finally:
        page.kill()
        page.communicate()


def test_inferred_words_and_cut_embeddings_are_those_of_tensorflow(tmp_path: Path):
    vectors = np.random.default_rng(0).normal(size=(2, CONFIG.text.word_dim))
    model = shortened_model(expanded(tiny_model(), vectors), 8)
    words = CaptionTokenizer([*WORDS, "yak", "zebra"], 6, lowercase=True, inferred=2)
    more = partial(write_runtimes, formats=RUNTIMES)
    version = export_model(model, words, tmp_path / "tiny", more=more)
    captions = ["a zebra on the grass", "two cats", "a yak, a zebra"]
    expected = tf_dpce.load(version).encode_texts(captions)
    assert expected.shape == (3, 8)
    for runtime in RUNTIMES:
        found = tf_dpce.load(version, runtime=runtime)
        assert found.count_inferred(captions).tolist() == [1, 0, 2]
        np.testing.assert_allclose(found.encode_texts(captions), expected, atol=TOLERANCE)


def test_a_runtime_that_differs_is_not_published(tmp_path: Path, monkeypatch):
    folded, other = fuse_batch_norm.folded, tiny_model(seed=1)

    def wrong(encoder: keras.Model) -> keras.Model:
        return folded(other.image_encoder if len(encoder.input_shape) == 4 else encoder)

    monkeypatch.setattr(fuse_batch_norm, "folded", wrong)
    with raises("runtimes.differs"):
        export_model(
            tiny_model(),
            tokenizer(),
            tmp_path / "tiny",
            more=partial(write_runtimes, formats=["onnx"]),
        )
    assert list((tmp_path / "tiny").iterdir()) == []


def test_files_of_another_export_are_refused(exported: Path, tmp_path: Path):
    other = tmp_path / "other"
    export_model(
        tiny_model(seed=1), tokenizer(), other, more=partial(write_runtimes, formats=["onnx"])
    )
    shutil.rmtree(other / "1" / "runtimes")
    shutil.copytree(exported / "1" / "runtimes", other / "1" / "runtimes")
    with raises("runtimes.damaged", other / "1" / "runtimes" / "manifest.json"):
        tf_dpce.load(other, runtime="onnx")


def test_a_layer_without_a_counterpart_is_named(tmp_path: Path):
    values = to_dict(CONFIG)
    values["text"] |= {"tower": "recurrent", "widths": [8], "blocks": []}
    model = build_model(from_dict(values), len(WORDS), num_instances=5)
    with raises("runtimes.operation") as caught:
        write_onnx(fuse_batch_norm.folded(model.text_encoder), tmp_path / "text.onnx")
    assert "text_gru0" in str(caught.value) and "GRU" in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "backbone", ["EfficientNetLite0", "MobileNetV2", "ResNet50", "DenseNet121"]
)
def test_backbones_compute_the_same(backbone: str, tmp_path: Path):
    import onnxruntime

    keras.utils.set_random_seed(0)
    image = {"backbone": backbone, "input_size": 64, "head_dim": 16}
    config = from_dict(to_dict(CONFIG) | {"image": to_dict(CONFIG)["image"] | image})
    encoder = fuse_batch_norm.folded(build_model(config, len(WORDS), 5).image_encoder)
    write_onnx(encoder, tmp_path / "image.onnx")
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 64, 64, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "image.onnx")
    (found,) = session.run(None, {"image": pixels})
    np.testing.assert_allclose(found, encoder(pixels, training=False), atol=1e-5)


def test_a_tokenizer_without_a_counterpart_is_refused(tmp_path: Path):
    characters = CaptionTokenizer(WORDS, max_length=6, lowercase=True, kind="characters")
    with raises("runtimes.tokenizer"):
        write_runtimes(ServingModule(tiny_model(), characters), tmp_path, ["onnx"])
    assert not list(tmp_path.iterdir())
