"""Every example in a docstring runs and gives what it says."""

from __future__ import annotations

import csv
import doctest
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.samples import image

# What examples use without importing it.
IMPORTS = """
import asyncio
from pathlib import Path
import keras
import numpy as np
import tensorflow as tf
import tf_dpce
from tf_dpce import CaptionTokenizer, DualPath, image_tower, text_tower
from tf_dpce.losses import ContrastiveLoss, InstanceLoss, RankingLoss
from tf_dpce.search import open_index
from tf_dpce.search.embedding.fingerprint import model_digest
from tf_dpce.search.embedding.inputs import find_images
"""
# Examples that need files, models or a server.
PREPARED = (
    *("tf_dpce.data.pairs", "tf_dpce.evaluation.embed", "tf_dpce.evaluation.callback"),
    *("tf_dpce.export.encoder", "tf_dpce.export.publish", "tf_dpce.export.serving_module"),
    *("tf_dpce.runtimes.load", "tf_dpce.models.fuse_batch_norm", "tf_dpce.search.searcher"),
    "tf_dpce.search.embedding.embed",
    *("tf_dpce.search.index.folder", "tf_dpce.serving.client", "tf_dpce.serving.async_client"),
    *("tf_dpce.search.index.build", "tf_dpce.search.interface"),
    *("tf_dpce.models.expansion", "tf_dpce.models.shortening"),
)


def examples(project_root: Path) -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for folder in ("tf_dpce", "pipelines", "benchmarks"):
        for path in sorted((project_root / folder).rglob("*.py")):
            if ">>> " in path.read_text():
                parts = path.relative_to(project_root).with_suffix("").parts
                module = import_module(".".join(parts).removesuffix(".__init__"))
                yield from (test for test in finder.find(module) if test.examples)


def run(tests: list[doctest.DocTest], names: dict[str, Any]) -> int:
    """Runs examples with some more names; returns how many there are."""
    failed, options = [], doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    for test in tests:
        test.globs = {**names, **test.globs}
        doctest.DocTestRunner(optionflags=options).run(test, out=failed.append)
    assert not failed, "".join(failed)
    return len(tests)


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    found: dict[str, Any] = {}
    exec(IMPORTS, found)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of the examples: word vectors and images of its user."""
    (tmp_path / "glove.txt").write_text("dog" + " 0.5" * 300 + "\n")
    names = ("dog.jpg", "cat.jpg", *(f"images/{number}.jpg" for number in range(50)))
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        # Copies of one image would be one instance, in one split.
        (tmp_path / name).write_bytes(image(size=(80 + number, 64)))
    with (tmp_path / "pairs.csv").open("w", newline="") as stream:
        rows = [(f"{number}.jpg", f"a dog on the grass {number}") for number in range(50)]
        csv.writer(stream).writerows([("image", "caption"), *rows])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_examples_that_need_no_model(project_root: Path, folder: Path, names: dict[str, Any]):
    tests = [test for test in examples(project_root) if not test.name.startswith(PREPARED)]
    assert run(tests, {**names, "folder": folder}) > 20


@pytest.mark.full
def test_examples_that_need_models_or_a_server(
    project_root: Path, folder: Path, names: dict[str, Any], tiny_export: Path
):
    from tests.unit.export.tiny import SIZE, WORDS, tiny_model
    from tests.unit.serving.servers import running

    for name in ("scenes", "flickr8k"):
        shutil.copytree(tiny_export, folder / "saved_models" / name)
    model = tiny_model()
    pixels = names["np"].zeros((2, SIZE, SIZE, 3), "float32")
    known = {
        **names,
        "model": model,
        "tokenizer": names["CaptionTokenizer"](WORDS, 6, lowercase=True),
        "pixels": pixels,
        "image_batches": names["tf"].data.Dataset.from_tensors(
            {"image": pixels, "instance": [0, 1]}
        ),
    }
    tests = {t.name: t for t in examples(project_root) if t.name.startswith(PREPARED)}
    # The first makes the index of the embeddings that `embed` leaves, the last deletes from it.
    searches = ("index.build.build_index", "index.build.open_index", "interface.Index")
    searches += ("searcher.Searcher", "index.folder.FolderIndex")
    search = [tests.pop(f"tf_dpce.search.{name}") for name in searches]
    clients = [tests.pop(name) for name in list(tests) if "client" in name]
    run([*tests.values(), *search], known)
    with running("development", folder / "saved_models", folder / "deployment") as server:
        for test in clients:
            for example in test.examples:
                address = f"localhost:{server.rest_port}"
                example.source = example.source.replace("localhost:8501", address)
        run(clients, known)
