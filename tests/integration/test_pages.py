"""A page is a script: its Python blocks and commands run in order, on small files."""

from __future__ import annotations

import json
import shutil
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.layouts import LAYOUTS, SPLITS, draw, flickr8k, rows
from tests.pages import PAGES, all_blocks, calls, lines
from tests.unit.datasets.tables import write as write_table
from tests.unit.export.tiny import WORDS, tiny_data, tiny_model
from tf_dpce.datasets.shapes.scene import make_scene

# Pages that run here, with what runs before them, and those that other tests run.
SCRIPTS = ("benchmarks", "datasets", "export", "extending", "index", "scenes", "search")
ELSEWHERE = (
    "README.md",
    "docs/evaluation.md",
    "docs/tutorial.md",
    "docs/serving.md",
    "docs/training.md",
)
# What a page does outside of our verbs.
OTHERS = ("make ", "source ")


def test_every_page_with_python_is_run():
    blocks = [(page, block) for page in PAGES for block in all_blocks(page)]
    found = {page for page, block in blocks if block.language == "python" and not block.reason}
    assert found <= {*ELSEWHERE, *(f"docs/{name}.md" for name in SCRIPTS)}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a reader."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def own_pairs(here: Path) -> None:
    write_table(here / "pairs.csv", rows(draw(here / "images", [f"{n}.png" for n in range(40)])))


def run_page(name: str, names: dict[str, Any] | None = None) -> None:
    """Runs the blocks of a page in this process; Python blocks share `names`."""
    names = names or {}
    for block in all_blocks(f"docs/{name}.md"):
        if block.language == "python" and not block.reason:
            exec(compile(block.text, name, "exec"), names)
        if block.language != "bash" or block.reason:
            continue
        for line in lines(block.text):
            programs = list(calls(line))
            assert programs or line.startswith(OTHERS), line
            for program, argv in programs:
                argv = [path for word in argv for path in sorted(glob(word)) or [word]]
                assert program.main(argv) == 0, line


def write_word2vec(path: Path) -> None:
    """Writes vectors of the words of scenes, in the binary form of word2vec."""
    texts = " ".join(text for number in range(40) for text in make_scene(1, number).captions)
    words = sorted(set(texts.split()))
    vector = np.ones(300, "<f4").tobytes()
    body = b"".join(word.encode() + b" " + vector + b"\n" for word in words)
    path.write_bytes(f"{len(words)} 300\n".encode() + body)


@pytest.mark.full
def test_the_three_benchmarks(here: Path):
    raw = here / "data" / "raw"
    for name in ("Flickr8k of", "Flickr30k of", "MSCOCO of 2014:", "MSCOCO of 2014 with", "CUHK"):
        next(layout for row, layout in LAYOUTS.items() if row.startswith(name))(raw)
    (raw / "coco").rename(raw / "mscoco")
    shutil.copy(raw / "mscoco" / "dataset_coco.json", here)
    write_word2vec(here / "GoogleNews-vectors-negative300.bin")
    run_page("benchmarks")
    # The script takes the images of Flickr8k's lists from Flickr30k, which has the same names here.
    listed = dict(line.split("\t") for line in (here / "splits.tsv").read_text().splitlines())
    assert listed == SPLITS


def test_datasets(here: Path, own_pairs: None):
    flickr8k(here / "data" / "raw")
    run_page("datasets")


def test_scenes(here: Path):
    run_page("scenes")


@pytest.mark.full
def test_extending(here: Path, own_pairs: None):
    listed = [
        {"file": name, "texts": texts, "part": ("train", "train", "val", "test")[number % 4]}
        for number, (name, texts) in enumerate(draw(here / "album").items())
    ]
    (here / "album" / "album.json").write_text(json.dumps([*listed, {**listed[0], "texts": []}]))
    run_page("extending")
    assert (here / "data" / "album" / "manifest.json").exists()
    assert (here / "saved_models" / "own" / "1" / "saved_model.pb").exists()


@pytest.mark.full
def test_start_here(here: Path):
    from pipelines.demo import run_line
    from tests.integration.test_line import TINY_DATA, TINY_RUN

    run_line(here / "runs" / "demo", TINY_DATA, TINY_RUN)
    run_page("index")
    assert (here / "hits.png").exists()


@pytest.fixture
def tiny_world(here: Path, tiny_run: Path, tiny_export: Path) -> Path:
    """A run, its data and its export under the names that pages use, and images."""

    for name in ("mine", "flickr8k"):
        shutil.copytree(tiny_run, here / "runs" / name)
        tiny_data(here / "data" / name)
    shutil.copytree(tiny_export, here / "saved_models" / "flickr8k")
    draw(here, ["dog.jpg", "image.jpg"])
    return here


@pytest.mark.full
def test_export(tiny_world: Path):
    from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

    tokenizer = CaptionTokenizer(WORDS, 6, lowercase=True)
    run_page("export", {"model": tiny_model(), "tokenizer": tokenizer})


@pytest.mark.full
def test_search(tiny_world: Path):
    from pipelines import embed

    names = ["1000268201_693b08cb0e.jpg", *(f"{number}.jpg" for number in range(12))]
    draw(tiny_world / "data" / "raw" / "flickr8k" / "Flicker8k_Dataset", names)
    draw(tiny_world / "photos")
    draw(tiny_world / "more", ["13.jpg", "14.jpg"])
    new = ["--images", "more", "--out", "embeddings/new"]
    assert embed.main(["--model", "saved_models/flickr8k", *new]) == 0
    (tiny_world / "gone.txt").write_text("3.jpg\n4.jpg\n")
    (tiny_world / "queries.txt").write_text("a dog on the grass\ntwo cats\n")
    run_page("search")
