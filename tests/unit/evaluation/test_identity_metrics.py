"""Metrics if several images are right: hand-derived values, extremes, and a plain reference."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from tests.errors import raises
from tf_dpce.evaluation import identity_metrics, ranks, retrieval_metrics


def reference(images, texts, image_ids, text_ids) -> dict:
    """The definition, one caption at a time over the full matrix of exact integer scores."""
    best, precisions, penalties = [], [], []
    for caption, person in zip(texts, text_ids, strict=True):
        # Sorted by falling score, wrong before right where scores are equal.
        items = sorted(
            (-int(caption @ image), image_id == person)
            for image, image_id in zip(images, image_ids, strict=True)
        )
        right = [place for place, (_, is_right) in enumerate(items, 1) if is_right]
        best.append(right[0])
        among_so_many = [sum(r <= place for r in right) / place for place in right]
        precisions.append(sum(among_so_many) / len(right))
        penalties.append(len(right) / right[-1])
    count = len(texts)
    recalls = {f"r{k}": 100 * sum(r <= k for r in best) / count for k in (1, 5, 10)}
    middle = sorted(best)[(count - 1) // 2] + sorted(best)[count // 2]
    return {
        **recalls,
        "medr": middle // 2,
        "meanr": sum(best) / count,
        "map": 100 * sum(precisions) / count,
        "minp": 100 * sum(penalties) / count,
    }


def one_query(*right: bool) -> dict[str, float]:
    """The metrics of one caption whose images, by falling score, are right or wrong."""
    images = np.arange(len(right), 0, -1.0)[:, np.newaxis]
    found = identity_metrics(images, np.ones((1, 1)), np.array(right, int), np.array([1]))
    return found["text_to_image"]


def test_equals_the_plain_reference_on_random_data_with_ties(monkeypatch):
    for seed in range(40):
        draw = np.random.default_rng(seed)
        people, width = int(draw.integers(1, 12)), int(draw.integers(1, 5))
        image_ids = np.concatenate([np.arange(people), draw.integers(0, people, 25)])
        text_ids = np.concatenate([np.arange(people), draw.integers(0, people, 20)])
        draw.shuffle(image_ids)
        # Few small integers: most scores are shared by several images, and all are exact.
        images = draw.integers(-2, 3, (len(image_ids), width)).astype(np.float32)
        texts = draw.integers(-2, 3, (len(text_ids), width)).astype(np.float32)
        monkeypatch.setattr(ranks, "_BLOCK_SCORES", int(draw.integers(1, 400)))

        found = identity_metrics(images, texts, image_ids, text_ids)

        expected = reference(images, texts, image_ids, text_ids)
        assert found["image_to_text"] is None
        assert found["text_to_image"] == pytest.approx(expected, abs=1e-9), f"seed {seed}"
        assert found["rsum"] == pytest.approx(sum(expected[f"r{k}"] for k in (1, 5, 10)))
        # Both functions agree on the best hits.
        other = retrieval_metrics(images, texts, image_ids, text_ids)["text_to_image"]
        assert other == {key: found["text_to_image"][key] for key in other}


def test_perfect_query_has_all_its_hits_first():
    perfect = {"r1": 100, "r5": 100, "r10": 100, "medr": 1, "meanr": 1, "map": 100, "minp": 100}
    assert one_query(True, True, True, False, False) == perfect


def test_worst_query_has_all_its_hits_last():
    # Ranks 4 and 5 of 5: precisions 1/4 and 2/5, and two hits within five.
    found = one_query(False, False, False, True, True)
    assert found["map"] == pytest.approx(100 * (1 / 4 + 2 / 5) / 2)
    assert found["minp"] == pytest.approx(100 * 2 / 5)
    assert (found["r1"], found["meanr"]) == (0, 4)


def test_hits_between_wrong_ones():
    # Ranks 1, 3 and 6: precisions 1/1, 2/3 and 3/6, and three hits within six.
    found = one_query(True, False, True, False, False, True, False)
    assert found["map"] == pytest.approx(100 * (1 + 2 / 3 + 1 / 2) / 3)
    assert found["minp"] == pytest.approx(50)
    assert found["r1"] == 100


def test_wrong_images_of_an_equal_score_come_before_each_right_one():
    # Scores 2 right, 2 wrong, 1 right, 1 wrong, 1 wrong: the right ones have ranks 2 and 5.
    images = np.array([[2.0], [2.0], [1.0], [1.0], [1.0]])
    found = identity_metrics(images, np.ones((1, 1)), np.array([7, 0, 7, 0, 0]), np.array([7]))
    assert found["text_to_image"]["map"] == pytest.approx(100 * (1 / 2 + 2 / 5) / 2)
    assert found["text_to_image"]["minp"] == pytest.approx(100 * 2 / 5)


def test_queries_count_alike_however_many_images_they_have():
    # The first caption finds its three images first (100 %), the second its one at rank 2:
    # precision 1/2 and one hit within two.
    images = np.array([[3.0, 1.0], [2.0, 0.0], [1.0, 0.0], [0.0, 0.5]])
    found = identity_metrics(images, np.eye(2), np.array([0, 0, 0, 1]), np.array([0, 1]))
    assert found["text_to_image"]["map"] == pytest.approx(75)
    assert found["text_to_image"]["minp"] == pytest.approx(75)


@pytest.mark.parametrize("seed", range(2))
def test_collapsed_model_ranks_every_wrong_image_first(seed):
    # Odd sizes: the edges of a matrix product add up in another order than its middle.
    draw = np.random.default_rng(seed)
    people, width = int(draw.integers(30, 300)), int(draw.integers(3, 2100))
    vector = draw.normal(size=width).astype(np.float32)
    images, texts = np.tile(vector, (2 * people, 1)), np.tile(vector, (people, 1))
    image_ids = np.repeat(np.arange(people), 2)

    found = identity_metrics(images, texts, image_ids, np.arange(people))

    # Of 2 P images the two right ones have ranks 2 P - 1 and 2 P.
    last = 2 * people
    assert found["rsum"] == 0
    assert found["text_to_image"]["minp"] == pytest.approx(100 * 2 / last)
    assert found["text_to_image"]["map"] == pytest.approx(50 * (1 / (last - 1) + 2 / last))


def test_memory_stays_below_the_full_matrix():
    count = 6_000
    draw = np.random.default_rng(0)
    vectors, ids = draw.normal(size=(count, 2)).astype(np.float32), np.arange(count) // 2
    tracemalloc.start()
    identity_metrics(vectors, vectors[:3_000], ids, ids[:3_000])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Scores, comparisons and vectors of one block; the full matrix alone is 144 MB.
    assert peak < 80e6


def test_image_without_a_caption_is_one_more_wrong_one():
    images = np.array([[1.0], [2.0]])
    found = identity_metrics(images, np.ones((1, 1)), np.array(["a", "b"]), np.array(["a"]))
    assert found["text_to_image"]["meanr"] == 2


def test_bad_input_is_refused_as_by_retrieval_metrics():
    eye = np.eye(4)
    with raises("evaluation.no_match"):
        identity_metrics(eye[:1], eye, np.arange(1), np.arange(4))
    with raises("evaluation.not_finite"):
        identity_metrics(eye, eye * np.nan, np.arange(4), np.arange(4))
    with pytest.raises(ValueError, match="image_ids"):
        identity_metrics(eye, eye, np.arange(2), np.arange(4))
