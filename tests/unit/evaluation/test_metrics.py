"""Retrieval metrics: hand-derived values, extremes, and a plain reference on data with ties."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from tests.errors import raises
from tf_dpce.evaluation import ranks, retrieval_metrics

DIRECTIONS = ("image_to_text", "text_to_image")


def reference(images, texts, image_ids, text_ids) -> dict:
    """The definition, one query at a time over the full matrix of exact integer scores."""
    result = {}
    for name, queries, corpus, query_ids, corpus_ids in (
        ("image_to_text", images, texts, image_ids, text_ids),
        ("text_to_image", texts, images, text_ids, image_ids),
    ):
        ranks = []
        for query, query_id in zip(queries, query_ids, strict=True):
            # Sorted by falling score, wrong before right where scores are equal.
            items = sorted(
                (-int(query @ item), item_id == query_id)
                for item, item_id in zip(corpus, corpus_ids, strict=True)
            )
            ranks.append(next(place for place, (_, right) in enumerate(items, 1) if right))
        recalls = {f"r{k}": 100 * sum(r <= k for r in ranks) / len(ranks) for k in (1, 5, 10)}
        median = sorted(ranks)[(len(ranks) - 1) // 2] + sorted(ranks)[len(ranks) // 2]
        result[name] = {**recalls, "medr": median // 2, "meanr": sum(ranks) / len(ranks)}
    result["rsum"] = sum(result[d][f"r{k}"] for d in DIRECTIONS for k in (1, 5, 10))
    return result


def assert_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for direction in DIRECTIONS:
        assert found[direction] == pytest.approx(expected[direction], abs=1e-9)
    assert found["rsum"] == pytest.approx(expected["rsum"], abs=1e-9)


def test_equals_the_plain_reference_on_random_data_with_ties(monkeypatch):
    for seed in range(40):
        draw = np.random.default_rng(seed)
        groups, width = int(draw.integers(1, 40)), int(draw.integers(1, 5))
        image_ids = np.concatenate([np.arange(groups), draw.integers(0, groups, 5)])
        text_ids = np.concatenate([np.arange(groups), draw.integers(0, groups, 30)])
        draw.shuffle(text_ids)
        # Few small integers: most scores are shared by several items, and all are exact.
        images = draw.integers(-2, 3, (len(image_ids), width)).astype(np.float32)
        texts = draw.integers(-2, 3, (len(text_ids), width)).astype(np.float32)
        monkeypatch.setattr(ranks, "_BLOCK_SCORES", int(draw.integers(1, 400)))

        found = retrieval_metrics(images, texts, image_ids, text_ids)

        assert_same(found, reference(images, texts, image_ids, text_ids))


def test_hand_derived_ranks():
    # Scores of the images (rows) with the captions a, b, c, d, whose images are 0, 0, 1, 2:
    #   image 0:  1  0  2  0   right a, b: best is a, behind c            -> rank 2
    #   image 1:  0  1  0  0   right c: behind b; ties with a and d       -> rank 4
    #   image 2:  0  0  0  3   right d                                    -> rank 1
    # Columns: a 1 0 0 -> 1; b 0 1 0 -> image 0 ties with 2 behind 1 -> 3;
    #          c 2 0 0 -> image 1 behind 0, ties with 2 -> 3; d -> 1.
    scores = np.array([[1, 0, 2, 0], [0, 1, 0, 0], [0, 0, 0, 3]], np.float32)

    found = retrieval_metrics(np.eye(3), scores.T, np.array([0, 1, 2]), np.array([0, 0, 1, 2]))

    # Ranks 2, 4, 1: median 2, mean 7/3. Ranks 1, 3, 3, 1: median 2, mean 2.
    third = 100 / 3
    assert found["image_to_text"] == pytest.approx(
        {"r1": third, "r5": 100, "r10": 100, "medr": 2, "meanr": 7 / 3}
    )
    assert found["text_to_image"] == pytest.approx(
        {"r1": 50, "r5": 100, "r10": 100, "medr": 2, "meanr": 2}
    )
    assert found["rsum"] == pytest.approx(third + 50 + 400)


def test_median_rank_is_rounded_down():
    # Two images; the first finds its caption first, the second behind one wrong: ranks 1 and 2,
    # whose median is 1.5.
    texts = np.array([[1.0, 0.5], [0.0, 0.4]])
    found = retrieval_metrics(np.eye(2), texts, np.arange(2), np.arange(2))
    assert found["image_to_text"]["medr"] == 1
    assert found["image_to_text"]["meanr"] == 1.5


def test_perfect_batch_scores_everything():
    vectors, ids = np.eye(20, dtype=np.float32), np.array([f"photo{i}.jpg" for i in range(20)])
    found = retrieval_metrics(vectors, np.repeat(vectors, 5, axis=0), ids, np.repeat(ids, 5))
    perfect = {"r1": 100, "r5": 100, "r10": 100, "medr": 1, "meanr": 1}
    assert found == {"image_to_text": perfect, "text_to_image": perfect, "rsum": 600}


def test_worst_batch_ranks_last():
    # The right item has the lowest of all scores: rank 20 of 20.
    vectors, ids = np.eye(20, dtype=np.float32), np.arange(20)
    found = retrieval_metrics(vectors, -vectors, ids, ids)
    worst = {"r1": 0, "r5": 0, "r10": 0, "medr": 20, "meanr": 20}
    assert found == {"image_to_text": worst, "text_to_image": worst, "rsum": 0}


@pytest.mark.parametrize("seed", range(3))
def test_collapsed_model_scores_nothing(seed):
    # Odd sizes: the edges of a matrix product add up in another order than its middle.
    draw = np.random.default_rng(seed)
    count, width = int(draw.integers(30, 300)), int(draw.integers(3, 2100))
    vector = draw.normal(size=width).astype(np.float32)
    vector /= np.linalg.norm(vector)
    images, texts = np.tile(vector, (count, 1)), np.tile(vector, (count * 5, 1))
    ids = np.arange(count)

    found = retrieval_metrics(images, texts, ids, np.repeat(ids, 5))

    # All wrong items rank first: count - 1 images, or the 5 (count - 1) captions of others.
    assert found["rsum"] == 0
    assert found["text_to_image"]["meanr"] == count
    assert found["image_to_text"]["meanr"] == 5 * (count - 1) + 1


def test_hit_is_an_equal_id_not_an_equal_row():
    # Two images of one person: either is a hit for the person's caption.
    images = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    texts = np.array([[0.1, 1.0], [-1.0, 0.1]])
    found = retrieval_metrics(images, texts, np.array([7, 7, 9]), np.array([7, 9]))
    assert found["text_to_image"]["r1"] == 100


def test_order_of_items_does_not_matter():
    draw = np.random.default_rng(0)
    images, texts = draw.normal(size=(30, 4)), draw.normal(size=(60, 4))
    image_ids, text_ids = np.arange(30), np.repeat(np.arange(30), 2)
    one, two = draw.permutation(30), draw.permutation(60)
    found = retrieval_metrics(images[one], texts[two], image_ids[one], text_ids[two])
    assert_same(found, retrieval_metrics(images, texts, image_ids, text_ids))


def test_memory_stays_below_the_full_matrix():
    count = 6_000
    draw = np.random.default_rng(0)
    vectors, ids = draw.normal(size=(count, 2)).astype(np.float32), np.arange(count)
    tracemalloc.start()
    retrieval_metrics(vectors, vectors, ids, ids)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Scores, comparisons and vectors of one block; the full matrix alone is 288 MB.
    assert peak < 100e6


def test_an_embedding_that_is_not_finite_is_refused():
    for bad in (np.nan, np.inf):
        for side in (0, 1):
            vectors = [np.eye(4), np.eye(4)]
            vectors[side][2, 1] = bad
            with raises("evaluation.not_finite"):
                retrieval_metrics(*vectors, np.arange(4), np.arange(4))


def test_query_with_nothing_to_find_is_refused():
    with raises("evaluation.no_match"):
        retrieval_metrics(np.eye(4), np.eye(4)[:2], np.arange(4), np.arange(2))
    with raises("evaluation.no_match"):
        retrieval_metrics(np.eye(4)[:1], np.eye(4), np.arange(1), np.arange(4))


def test_shapes_that_do_not_belong_together_are_refused():
    for *shapes, name in (
        ((3, 2), (3, 4), (3,), (3,), "text_embeddings"),
        ((3, 2), (3, 2), (2,), (3,), "image_ids"),
        ((3, 2), (3, 2), (3,), (3, 1), "text_ids"),
        ((3,), (3, 2), (3,), (3,), "image_embeddings"),
        ((0, 2), (3, 2), (0,), (3,), "image_embeddings"),
    ):
        with pytest.raises(ValueError, match=name):
            retrieval_metrics(*(np.zeros(shape) for shape in shapes))
    with pytest.raises(ValueError, match="image_ids"):
        retrieval_metrics(np.eye(2), np.eye(2), np.arange(2), np.array(["0", "1"]))
