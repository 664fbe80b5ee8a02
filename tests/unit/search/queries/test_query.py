"""What a person types is read as it is meant, and combined as the vectors say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.errors import raises
from tf_dpce.search.queries.query import Term, combine, combined_kind, parse_query


@pytest.mark.parametrize(
    "query",
    [
        "black-and-white dog",
        "a dog - on the beach",
        "dog + ball",
        "2 * dog",
        "- dog",
        'a sign that says "stop"',
        '"stop" sign',
        '5" pipe',
        "view of a.jpg",
        "dog.",
        "",
        " ",
        "-" * 100_000,
        " " * 100_000 + "a",
        "1" * 100_000,
        '"' * 99_999,
    ],
    ids=lambda query: query[:20],
)
def test_a_plain_text_stays_one(query: str):
    assert parse_query(query) == [Term(text=query)]


@pytest.mark.parametrize(
    ("query", "terms"),
    [
        ('"dog"', [(1, "dog")]),
        ('"dog" - "ball" + image.jpg', [(1, "dog"), (-1, "ball"), (1, "image.jpg")]),
        ('"dog"-"ball"+"a - b"', [(1, "dog"), (-1, "ball"), (1, "a - b")]),
        ('2 * "dog" - .5*"ball"', [(2, "dog"), (-0.5, "ball")]),
        ('- 1.5 * image.jpg + "dog"', [(-1.5, "image.jpg"), (1, "dog")]),
        ("a-b/2.png - c.JPEG", [(1, "a-b/2.png"), (-1, "c.JPEG")]),
        ('"my holiday/a 1.jpg" + 3 * "x"', [(1, "my holiday/a 1.jpg"), (3, "x")]),
        ('"say ""hi""" - "x"', [(1, 'say "hi"'), (-1, "x")]),
        ("“dog” - „ball”", [(1, "dog"), (-1, "ball")]),  # as phones write them
    ],
)
def test_quotation_marks_and_names_of_images_make_a_sum(query: str, terms: list):
    found = [(term.weight, term.image or term.text) for term in parse_query(query)]
    assert found == terms
    for term in parse_query(query):
        assert (term.image is None) != term.name.lower().endswith((".jpg", ".jpeg", ".png"))


@pytest.mark.parametrize(
    "query",
    ['"dog" -- "ball"', '"dog" + ball', '"dog" -', '2 ** "dog"', '"a"+' * 100_000, '"a" + "b'],
    ids=lambda query: query[:20],
)
def test_what_is_meant_as_a_sum_and_is_none_is_refused(query: str):
    with raises("search.query") as error:
        parse_query(query)
    assert len(str(error.value)) < 250


def test_a_combination_is_the_weighted_sum_of_unit_length():
    # 2 (1, 0) - (0, 1) = (2, -1), of length sqrt(5).
    terms = [Term(2.0, text="a"), Term(-1.0, image="b.jpg")]
    combined = combine(terms, np.eye(2, dtype=np.float32))
    np.testing.assert_allclose(combined, [2 / math.sqrt(5), -1 / math.sqrt(5)], rtol=1e-6)
    assert combined.dtype == np.float32
    # A single one is what the model gave, to the bit.
    vector = np.float32([[0.6, 0.8000001]])
    assert combine([Term(text="a")], vector).tolist() == vector[0].tolist()


def test_what_cancels_or_weighs_beyond_measure_is_refused():
    vector = np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32)
    vector /= np.linalg.norm(vector)
    same = np.concatenate([vector, vector * np.float32(1.0000001)])
    for weights in ((1, -1), (1000, -1000), (0, 0)):
        with raises("search.query"):
            combine([Term(float(weight), text="a") for weight in weights], same)
    for weight in (math.nan, math.inf, 1e6, float("9" * 300)):
        with raises("search.query"):
            combine([Term(weight, text="a"), Term(text="b")], same)
    with raises("search.query"):
        combine([], same[:0])
    with pytest.raises(TypeError):
        Term(text="a", id="b")


def test_a_combination_is_of_the_kind_that_weighs_more_and_of_texts_if_equal():
    text, image, item = Term(-1.0, text="a"), Term(image=b"b"), Term(id="c")
    for terms, searched, kind in (
        ([text], "images", "texts"),
        ([image], "images", "images"),
        ([item], "images", "images"),
        ([item], "texts", "texts"),
        ([text, image], "images", "texts"),
        ([text, image, item], "images", "images"),
        ([text, image, item], "texts", "texts"),
    ):
        assert combined_kind(terms, searched) == kind
