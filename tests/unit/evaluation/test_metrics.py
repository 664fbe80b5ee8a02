"""Metrics: hand-derived values, extremes, and a plain reference on data with ties."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from tests.errors import raises
from tf_dpce.evaluation import identity_metrics, ranks, retrieval_metrics

DIRECTIONS = ("image_to_text", "text_to_image")


def reference(queries, corpus, query_ids, corpus_ids) -> dict[str, float]:
    """The definition, one query at a time over the full matrix of exact integer scores."""
    best, precisions, penalties = [], [], []
    for query, query_id in zip(queries, query_ids, strict=True):
        # Sorted by falling score, wrong before right if scores are equal.
        items = sorted(
            (-int(query @ item), item_id == query_id)
            for item, item_id in zip(corpus, corpus_ids, strict=True)
        )
        right = [rank for rank, (_, is_right) in enumerate(items, 1) if is_right]
        best.append(right[0])
        precisions.append(np.mean([sum(r <= rank for r in right) / rank for rank in right]))
        penalties.append(len(right) / right[-1])
    count = len(best)
    recalls = {f"r{k}": 100 * sum(rank <= k for rank in best) / count for k in (1, 5, 10)}
    middle = sorted(best)[(count - 1) // 2] + sorted(best)[count // 2]
    mean = {"map": 100 * np.mean(precisions), "minp": 100 * np.mean(penalties)}
    return {**recalls, "medr": middle // 2, "meanr": sum(best) / count, **mean}


def rsum(*directions: dict[str, float]) -> float:
    return sum(direction[key] for direction in directions for key in ("r1", "r5", "r10"))


def test_equals_the_plain_reference_on_random_data_with_ties(monkeypatch):
    for seed in range(40):
        draw = np.random.default_rng(seed)
        groups, width = int(draw.integers(1, 20)), int(draw.integers(1, 5))
        image_ids = np.concatenate([np.arange(groups), draw.integers(0, groups, 15)])
        text_ids = np.concatenate([np.arange(groups), draw.integers(0, groups, 25)])
        draw.shuffle(text_ids)
        # Few small integers: most scores are shared by several items, and all are exact.
        images = draw.integers(-2, 3, (len(image_ids), width)).astype(np.float32)
        texts = draw.integers(-2, 3, (len(text_ids), width)).astype(np.float32)
        monkeypatch.setattr(ranks, "_BLOCK_SCORES", int(draw.integers(1, 400)))
        i2t = reference(images, texts, image_ids, text_ids)
        t2i = reference(texts, images, text_ids, image_ids)

        found = retrieval_metrics(images, texts, image_ids, text_ids)
        assert list(found) == [*DIRECTIONS, "rsum"]
        for direction, expected in zip(DIRECTIONS, (i2t, t2i), strict=True):
            assert list(found[direction]) == ["r1", "r5", "r10", "medr", "meanr"]
            for key, value in found[direction].items():
                assert value == pytest.approx(expected[key], abs=1e-9), f"seed {seed}, {key}"
        assert found["rsum"] == pytest.approx(rsum(i2t, t2i))

        found = identity_metrics(images, texts, image_ids, text_ids)
        assert found["image_to_text"] is None
        assert found["text_to_image"] == pytest.approx(t2i, abs=1e-9), f"seed {seed}"
        assert found["rsum"] == pytest.approx(rsum(t2i))


@pytest.mark.parametrize("gap", [0, 1e-12, 1e-7])
def test_near_ties_are_ranked_by_float64(gap: float, monkeypatch):
    # Among captions that are drawn, each right one has a wrong copy whose score is higher by a gap
    # that float32 cannot see, and as many whose score is lower. A copy, and one within 1e-9, ties.
    draw = np.random.default_rng(0)
    images = draw.normal(size=(40, 1024))
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    right = images + 0.1 * draw.normal(size=images.shape)
    texts = np.concatenate([right, right + gap * images, right - gap * images])
    image_ids, text_ids = np.arange(40), np.concatenate([np.arange(40), (np.arange(80) + 1) % 40])
    # No wrong copy of the caption of image i may have its id: those of i have that of i + 1.
    scores = images @ texts.T
    wrong = image_ids[:, None] != text_ids
    of_images = scores[image_ids, image_ids][:, None] - 1e-9 * np.linalg.norm(texts, axis=1).max()
    of_texts = scores[text_ids, np.arange(120)] - 1e-9 * np.linalg.norm(texts, axis=1)
    expected = [
        1 + np.sum((scores >= of_images) & wrong, axis=1),
        1 + np.sum((scores >= of_texts) & wrong, axis=0),
    ]
    assert (expected[0] == (2 if gap == 1e-7 else 3)).all()
    # Pair by pair, then as a product; far too large for float32, and far too small.
    for scale, most in ((1.0, 1), (1.0, 0), (1e100, 1), (1e-100, 1)):
        monkeypatch.setattr(ranks, "_MOST_PAIRS", most)
        found = ranks.best_ranks(scale * images, texts, image_ids, text_ids)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


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
    expected = {"r1": third, "r5": 100, "r10": 100, "medr": 2, "meanr": 7 / 3}
    assert found["image_to_text"] == pytest.approx(expected)
    expected = {"r1": 50, "r5": 100, "r10": 100, "medr": 2, "meanr": 2}
    assert found["text_to_image"] == pytest.approx(expected)
    assert found["rsum"] == pytest.approx(third + 50 + 400)

    # The first of two images finds its caption first, the second behind one wrong: ranks 1 and 2,
    # whose median, 1.5, is rounded down.
    texts = np.array([[1.0, 0.5], [0.0, 0.4]])
    found = retrieval_metrics(np.eye(2), texts, np.arange(2), np.arange(2))["image_to_text"]
    assert (found["medr"], found["meanr"]) == (1, 1.5)


def test_the_best_and_the_worst_model():
    vectors, ids = np.eye(20, dtype=np.float32), np.array([f"image{i}.jpg" for i in range(20)])
    perfect = {"r1": 100, "r5": 100, "r10": 100, "medr": 1, "meanr": 1}
    found = retrieval_metrics(vectors, np.repeat(vectors, 5, axis=0), ids, np.repeat(ids, 5))
    assert found == {**dict.fromkeys(DIRECTIONS, perfect), "rsum": 600}
    # The right item has the lowest of all scores: rank 20 of 20.
    worst = {"r1": 0, "r5": 0, "r10": 0, "medr": 20, "meanr": 20}
    found = retrieval_metrics(vectors, -vectors, ids, ids)
    assert found == {**dict.fromkeys(DIRECTIONS, worst), "rsum": 0}


@pytest.mark.parametrize("seed", range(3))
def test_collapsed_model_scores_nothing(seed):
    # Odd sizes: the edges of a matrix product add up in another order than its middle.
    draw = np.random.default_rng(seed)
    count, width = int(draw.integers(30, 300)), int(draw.integers(3, 2100))
    vector = draw.normal(size=width).astype(np.float32)
    vector /= np.linalg.norm(vector)
    images, texts = np.tile(vector, (2 * count, 1)), np.tile(vector, (count * 5, 1))
    ids = np.arange(count)

    found = retrieval_metrics(images[:count], texts, ids, np.repeat(ids, 5))
    # All wrong items rank first: count - 1 images, or the 5 (count - 1) captions of others.
    assert found["rsum"] == 0
    assert found["text_to_image"]["meanr"] == count
    assert found["image_to_text"]["meanr"] == 5 * (count - 1) + 1

    found = identity_metrics(images, texts[:count], np.repeat(ids, 2), ids)
    # Of 2 N images the two right ones have ranks 2 N - 1 and 2 N.
    last = 2 * count
    assert found["rsum"] == 0
    assert found["text_to_image"]["minp"] == pytest.approx(100 * 2 / last)
    assert found["text_to_image"]["map"] == pytest.approx(50 * (1 / (last - 1) + 2 / last))


@pytest.mark.full
def test_memory_stays_below_the_full_matrix():
    count = 4_000
    draw = np.random.default_rng(0)
    vectors, ids = draw.normal(size=(count, 2)).astype(np.float32), np.arange(count)
    # The scores of two blocks are 67 MB, the full matrix 128 MB.
    for measure, image_ids in ((retrieval_metrics, ids), (identity_metrics, ids // 2)):
        tracemalloc.start()
        measure(vectors, vectors, image_ids, image_ids)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 90e6


def test_an_embedding_that_is_not_finite_is_refused():
    for measure in (retrieval_metrics, identity_metrics):
        for bad in (np.nan, np.inf):
            for side in (0, 1):
                vectors = [np.eye(4), np.eye(4)]
                vectors[side][2, 1] = bad
                with raises("evaluation.not_finite"):
                    measure(*vectors, np.arange(4), np.arange(4))


def test_a_query_with_nothing_to_find_is_refused():
    eye = np.eye(4)
    for measure in (retrieval_metrics, identity_metrics):
        with raises("evaluation.no_match"):
            measure(eye[:1], eye, np.arange(1), np.arange(4))
    with raises("evaluation.no_match"):
        retrieval_metrics(eye, eye[:2], np.arange(4), np.arange(2))
    # An image without a caption is no query of `identity_metrics`, only one more wrong image.
    images = np.array([[1.0], [2.0]])
    found = identity_metrics(images, np.ones((1, 1)), np.array(["a", "b"]), np.array(["a"]))
    assert found["text_to_image"]["meanr"] == 2


def test_shapes_that_do_not_belong_together_are_refused():
    for *shapes, name in (
        ((3, 2), (3, 4), (3,), (3,), "text_embeddings"),
        ((3, 2), (3, 2), (2,), (3,), "image_ids"),
        ((3, 2), (3, 2), (3,), (3, 1), "text_ids"),
        ((3,), (3, 2), (3,), (3,), "image_embeddings"),
        ((0, 2), (3, 2), (0,), (3,), "image_embeddings"),
    ):
        for measure in (retrieval_metrics, identity_metrics):
            with pytest.raises(ValueError, match=name):
                measure(*(np.zeros(shape) for shape in shapes))
