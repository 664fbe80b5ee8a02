"""Pieces of words: learnt from the training captions, stored in the run, and exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.errors import raises
from tests.samples import image
from tests.scenes import copy_data
from tests.unit.export.tiny import tiny_model
from tests.unit.training.tiny import run_tiny
from tf_dpce.data.pieces import learn_pieces
from tf_dpce.data.prepare import prepare
from tf_dpce.datasets.listing import Image
from tf_dpce.export.operations import SERVING, check_operations, check_placement, read_meta_graph
from tf_dpce.export.publish import write_archive
from tf_dpce.export.serving_module import ServingModule
from tf_dpce.export.session_process import SessionModel
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer
from tf_dpce.preprocessing.words import plain_pieces, plain_words
from tf_dpce.training.run_folder import load_run

CAPTIONS = [
    *("walking", "talking", "barking", "walking", "jumping", "walked", "walks", "barks", "talks"),
    *("two dogs", "two cats", "a dog", "Zürich"),
]


def learnt(folder: Path, captions: list[str], size: int = 60, **options: object) -> list[str]:
    """Pieces of these training captions, beside validation captions that nobody may learn from."""
    folder.mkdir()
    items = []
    rows = [*((text, "train") for text in captions), ("quiz", "val"), ("quiz", "test")]
    for number, (text, split) in enumerate(rows):
        path = folder / f"{number}.png"
        path.write_bytes(image("PNG", size=(6 + number, 5)))
        items.append(Image(path.name, path, [text], split))
    prepare(items, folder / "data", source="table", lowercase=True)
    folder /= "data"
    return learn_pieces(folder, True, size, **options)


def test_pieces_are_learnt_from_the_training_captions_alone(tmp_path: Path):
    pieces = learnt(tmp_path / "data", CAPTIONS)
    # What several words share is a piece; every training word has pieces, "quiz" has none.
    assert {"walking", "two", "##king"} <= set(pieces)
    assert len(pieces) == len(set(pieces)) <= 60
    for word in (word for text in CAPTIONS for word in plain_words(text.lower())):
        assert plain_pieces(word, pieces), word
    assert not plain_pieces("quiz", pieces)
    # A word that nobody wrote, of parts that were written.
    assert plain_pieces("catking", pieces) == ["c", "##a", "##t", "##king"]
    # Single letters come last.
    alone = [len(piece.removeprefix("##")) == 1 for piece in pieces]
    assert alone == sorted(alone) and any(alone) and not all(alone)


def test_the_order_of_captions_changes_no_piece(tmp_path: Path):
    one = learnt(tmp_path / "one", CAPTIONS)
    assert learnt(tmp_path / "other", CAPTIONS[::-1]) == one


def test_words_with_opposites_stay_whole(tmp_path: Path):
    assert "zürich" not in learnt(tmp_path / "one", CAPTIONS)
    assert "zürich" in learnt(tmp_path / "other", CAPTIONS, whole=["zürich", "walks"])


def test_every_server_links_the_operations_and_answers_as_the_module(tmp_path: Path):
    pieces = ["dog", "##s", "cat", "two", "##é", "🐕"]
    module = ServingModule(tiny_model(), CaptionTokenizer(pieces, 6, True, kind="wordpiece"))
    write_archive(module, tmp_path)
    graph = read_meta_graph(tmp_path)
    for serving in SERVING:
        check_operations(graph, serving)
    check_placement(graph)
    texts = [text.encode() for text in ("Two DOGS", "caté", "zebra", "", "🐕 dogs", "dogs" * 60)]
    answer = SessionModel(tmp_path).run("encode_text", {"text": texts})
    expected = module.encode_text(tf.constant(texts))
    assert answer["status"].tolist() == [0, 0, 6, 1, 0, 6]
    np.testing.assert_allclose(answer["embedding"], expected["embedding"], atol=1e-6)


@pytest.mark.full
def test_a_run_has_its_pieces_and_no_others(scenes: Path, tmp_path: Path):
    data, run = copy_data(scenes, tmp_path / "data"), tmp_path / "run"
    options = {"text__tokenizer": "wordpiece", "text__pieces": 70, "stage2__epochs": 0}
    assert run_tiny(data, run, **options) == 0
    pieces = run / "pieces.txt"
    own = pieces.read_text().splitlines()
    assert own == learn_pieces(data, True, 70)
    tokenizer = load_run(run).tokenizer
    assert (tokenizer.kind, tokenizer.words) == ("wordpiece", tuple(own))
    # A word that no caption has is read by its pieces, as long as it has no strange letter.
    assert tokenizer(["redgreen", "狗"]).numpy().any(axis=1).tolist() == [True, False]
    # Those of another run, or none, are refused, and put back when the run is resumed.
    for harm in (lambda: pieces.write_text("\n".join(own[::-1]) + "\n"), pieces.unlink):
        harm()
        with raises("run.vocabulary", path=pieces):
            load_run(run)
    assert run_tiny(data, run, "--resume", **options) == 0
    assert pieces.read_text().splitlines() == own
    # Stage 2 starts from it with the same tokens only.
    second = ("--stage", "2", "--init-from", str(run))
    changed = {**options, "stage2__epochs": 1, "text__pieces": 50}
    assert run_tiny(data, tmp_path / "new", *second, **changed) == 1
    assert not (tmp_path / "new").exists()
    assert run_tiny(data, tmp_path / "new", *second, **{**changed, "text__pieces": 70}) == 0
