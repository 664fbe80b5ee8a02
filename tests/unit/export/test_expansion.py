"""Words that were never trained: from their word vectors to an export that understands them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tf_dpce
from pipelines import export
from tests.errors import printed_code, raises
from tests.unit.export.tiny import WORDS, encode, tiny_run
from tf_dpce.export.expansion import words_to_infer
from tf_dpce.export.golden import load_examples
from tf_dpce.export.operations import SERVING, check_operations, read_meta_graph
from tf_dpce.export.publish import write_version
from tf_dpce.export.serving_module import ServingModule
from tf_dpce.export.session_process import SessionModel
from tf_dpce.export.verify import check_answers
from tf_dpce.export.word_map import fit_word_map
from tf_dpce.files import read_json, write_json
from tf_dpce.models.expansion import expanded
from tf_dpce.preprocessing.status import NO_KNOWN_WORD, OK
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

NEW = ("hound", "kitten")


@pytest.fixture
def wider(model, tokenizer) -> ServingModule:
    """`model` with the words of NEW; the first one's vector is that of "dog"."""
    learnt = model.word_embedding.embeddings.numpy()
    rows = np.stack([learnt[WORDS.index("dog")], 0.5 * learnt[0]])
    words = CaptionTokenizer([*WORDS, *NEW], tokenizer.max_length, True, len(NEW))
    return ServingModule(expanded(model, rows), words)


@pytest.fixture
def run(tmp_path) -> Path:
    return tiny_run(tmp_path / "run")


def write_vectors(path: Path, words: tuple[str, ...], width: int = 3) -> Path:
    draws = np.random.default_rng(1).normal(size=(len(words), width))
    rows = (" ".join(f"{number:.4f}" for number in row) for row in draws)
    lines = [f"{word} {row}" for word, row in zip(words, rows, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def answers(module: ServingModule, captions: list[str]) -> dict[str, tf.Tensor]:
    return tf.function(module.encode_text)(tf.constant(captions))


def test_the_map_is_what_the_normal_equations_give():
    draw = np.random.default_rng(0)
    vectors, noise = draw.normal(size=(200, 5)), draw.normal(size=(200, 2))
    rows = vectors @ draw.normal(size=(5, 2)) + 3 + 0.5 * noise

    word_map = fit_word_map(vectors, rows)

    # Minimises |X W - Y|^2 + s |W|^2 of centred X and Y; s is in units of the mean eigenvalue.
    x, y = vectors - vectors.mean(0), rows - rows.mean(0)
    strength = word_map.strength * np.trace(x.T @ x) / 5
    weights = np.linalg.solve(x.T @ x + strength * np.eye(5), x.T @ y)
    np.testing.assert_allclose(word_map(vectors), x @ weights + rows.mean(0), atol=1e-9)
    # Of a variance of about 5 per number, noise of 0.25 is left.
    assert 0.85 < word_map.explained < 0.99


def test_where_vectors_say_nothing_of_the_rows_their_mean_is_taken():
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(60, 4)) + 7
    word_map = fit_word_map(draw.normal(size=(60, 30)), rows)
    assert abs(word_map.explained) < 0.2
    guess = word_map(draw.normal(size=(9, 30)))
    assert np.abs(guess - rows.mean(0)).max() < 0.5


def test_rows_that_hardly_left_their_vectors_are_inferred_as_those_vectors():
    # 30 words cannot show a map of 40 x 40 numbers, but that training began at the vectors does.
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(30, 40))
    word_map = fit_word_map(vectors, vectors + 0.01 * draw.normal(size=(30, 40)))
    unseen = draw.normal(size=(5, 40))
    assert np.abs(word_map(unseen) - unseen).max() < 0.1
    assert word_map.explained > 0.99


def test_no_inferred_row_is_longer_than_the_longest_that_was_learnt():
    vectors = np.random.default_rng(0).normal(size=(50, 3))
    word_map = fit_word_map(vectors, 2 * vectors)
    longest = np.linalg.norm(2 * vectors, axis=1).max()
    row = word_map(np.float32([[3e38, 0, 0]]))
    assert np.linalg.norm(row) == pytest.approx(longest)
    assert np.isfinite(row.astype(np.float16)).all()


def test_further_words_come_in_the_order_of_the_files(tmp_path):
    one = write_vectors(tmp_path / "one.txt", ("dog", "Hound", ",", "new york", "don't"))
    two = write_vectors(tmp_path / "two.txt", ("hound", "kitten", "..."))
    two.write_bytes(two.read_bytes() + b"caf\xe9 1 2 3\n")
    # Punctuation, phrases and what is not UTF-8 are no words of captions; "dog" is known, and
    # "hound" is there twice.
    assert words_to_infer([one, two], {"dog"}, True, None) == ["hound", "don't", "kitten"]
    assert words_to_infer([one, two], {"dog"}, False, 2) == ["Hound", "don't"]
    with raises("expand.size", one):
        words_to_infer([one], {"dog"}, True, 3)
    with raises("expand.size", one):
        words_to_infer([one], {"dog", "hound", "don't"}, True, None)


def test_known_words_are_answered_as_before_and_new_ones_by_their_rows(model, tokenizer, wider):
    before = ServingModule(model, tokenizer)
    captions = ["a dog on the grass", "two cats", "a hound", "kitten", "unheard of"]
    was, now = answers(before, captions), answers(wider, captions)

    np.testing.assert_allclose(now["embedding"][:2], was["embedding"][:2], atol=1e-6)
    # Its row is that of "dog", rounded to float16.
    dog = answers(before, ["a dog"])["embedding"][0]
    np.testing.assert_allclose(now["embedding"][2], dog, atol=2e-3)
    assert now["status"].numpy().tolist() == [OK, OK, OK, OK, NO_KNOWN_WORD]
    assert now["inferred"].numpy().tolist() == [0, 0, 1, 1, 0]
    assert "inferred" not in was
    assert wider.model.word_embedding.inferred.dtype == "float16"


def test_an_expanded_export_keeps_to_what_every_server_links_and_to_its_examples(wider, tmp_path):
    write_version(wider, tmp_path, "wider")

    graph = read_meta_graph(tmp_path)
    for serving in SERVING:
        check_operations(graph, serving)
    examples = load_examples(tmp_path)
    assert any(b"hound" in caption for caption in examples["encode_text"].inputs)
    served = SessionModel(tmp_path)
    checks = check_answers(tmp_path, examples, lambda _, calls: [served.run(*c) for c in calls])
    assert [check for check in checks if not check.passed] == []
    kitten = answers(wider, ["kitten"])["embedding"]
    np.testing.assert_allclose(encode(served, "encode_text", [b"kitten"])[0], kitten, atol=1e-5)
    assert (
        "understood by their vectors, never trained | 2, in float16 |"
        in (tmp_path / "model_card.md").read_text()
    )


@pytest.mark.process
def test_a_run_is_exported_with_the_words_of_a_file(run, tmp_path, caplog):
    vectors = write_vectors(tmp_path / "vectors.txt", (*WORDS, *NEW, "third"))
    folder = tmp_path / "saved_models" / "wider"
    options = ["--run", str(run), "--to", str(folder), "--float16", "--expand", str(vectors)]

    assert export.main([*options, "--expand-size", "2"]) == 0

    encoder = tf_dpce.load(folder)
    assert encoder.count_inferred(["a hound", "a dog", "hound kitten"]).tolist() == [1, 0, 2]
    assert encoder.encode_with_status("texts", ["kitten", "third"])[1].tolist() == [
        OK,
        NO_KNOWN_WORD,
    ]
    assert "| inferred words | from vectors.txt; " in (folder / "1/model_card.md").read_text()


def test_mistakes_publish_nothing(run, tmp_path, capsys):
    few = write_vectors(tmp_path / "few.txt", ("dog", "hound"))
    right = ["--run", str(run), "--to", str(tmp_path / "new/model")]
    for options, code in (
        (["--expand", str(few), "--expand-size", "5"], "expand.size"),
        (["--expand", str(few), str(few)], "vectors.repeated"),
        (["--expand", str(tmp_path / "no.txt")], "vectors.file"),
        (["--expand", str(few)], "expand.trained"),
        (["--expand-size", "5"], "expand.vectors"),
    ):
        assert export.main([*right, *options]) == 1
        assert printed_code(capsys.readouterr().err) == code
    config = read_json(run / "config.json")
    shutil.copy(run / "vocabulary.txt", run / "pieces.txt")
    config["data"]["pieces_sha256"] = config["data"]["vocabulary_sha256"]
    for tokens in ("characters", "wordpiece"):
        config["config"]["text"]["tokenizer"] = tokens
        write_json(run / "config.json", config)
        assert export.main([*right, "--expand", str(few)]) == 1
        assert printed_code(capsys.readouterr().err) == "expand.tokenizer"
    assert not (tmp_path / "new").exists()
