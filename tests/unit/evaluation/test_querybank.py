"""Querybank normalisation: hubs are found less, by their cosines with queries of a querybank."""

from __future__ import annotations

import numpy as np
import pytest

from tests.errors import raises
from tests.unit.export.tiny import CONFIG
from tf_dpce.evaluation import embedded_split, querybank, retrieval_metrics, tta
from tf_dpce.evaluation.embed import SplitEncoder
from tf_dpce.evaluation.protocols import evaluate_split
from tf_dpce.evaluation.querybank import hubness, querybank_normalised
from tf_dpce.evaluation.vocabulary_coverage import count_captions


def unit(draw: np.random.Generator, count: int, width: int = 5) -> np.ndarray:
    vectors = draw.normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_hubness_is_the_mean_cosine_with_the_nearest_queries(monkeypatch: pytest.MonkeyPatch):
    draw = np.random.default_rng(0)
    items, queries = unit(draw, 23), unit(draw, 12)
    # At most 5 items at a time.
    monkeypatch.setattr(querybank, "_BLOCK_SCORES", 60)
    for neighbours in (1, 4, 99):
        expected = [np.mean(sorted(queries @ item)[-neighbours:]) for item in items]
        found = hubness(items, queries, neighbours)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_inner_products_are_cosines_less_half_of_either_hubness():
    draw = np.random.default_rng(0)
    images, texts, image_queries, text_queries = (unit(draw, count) for count in (6, 9, 20, 30))
    found = querybank_normalised(images, texts, image_queries, text_queries)
    halves = hubness(images, text_queries)[:, np.newaxis] / 2 + hubness(texts, image_queries) / 2
    np.testing.assert_allclose(found[0] @ found[1].T, images @ texts.T - halves, atol=1e-6)


@pytest.mark.parametrize("count", [40, 41])
def test_a_collapsed_model_still_finds_nothing(count: int, monkeypatch):
    # Blocks of 8 rows, of which 41 leave one alone: a product of another kind, rounded otherwise.
    draw, ids = np.random.default_rng(0), np.arange(count)
    monkeypatch.setattr(querybank, "_BLOCK_SCORES", 8 * 30)
    alike = np.repeat(unit(draw, 1, 64), count, axis=0)
    normalised = querybank_normalised(alike, alike, unit(draw, 30, 64), unit(draw, 30, 64))
    assert retrieval_metrics(*normalised, ids, ids)["rsum"] == 0.0


# --- a split -----------------------------------------------------------------------------------


@pytest.mark.full
def test_a_split_is_normalised_by_the_first_images_of_another(model, data, tokenizer, monkeypatch):
    encoder = SplitEncoder(model, tokenizer, CONFIG.image, tta.PLAIN, 2)
    # The tiny data have 3 images and 6 captions a split.
    parts = [encoder.embed(data, split) for split in ("test", "train")]
    (images, texts), (query_images, query_texts) = parts
    captions = int(count_captions(data, "train", tokenizer).per_image[:2].sum())
    vectors = querybank_normalised(
        images.vectors, texts.vectors, query_images.vectors[:2], query_texts.vectors[:captions]
    )
    monkeypatch.setattr(embedded_split, "QUERYBANK_IMAGES", 2)
    augmentation = tta.TestTimeAugmentation(querybank="train")
    encoder = SplitEncoder(model, tokenizer, CONFIG.image, augmentation, 2)
    found = embedded_split.embed_split(encoder, data, "test")

    np.testing.assert_allclose(found.images.vectors, vectors[0], atol=1e-5)
    np.testing.assert_allclose(found.texts.vectors, vectors[1], atol=1e-5)


def test_the_querybank_is_another_split_that_exists(model, data, tokenizer):
    given = (model, tokenizer, CONFIG.image, data, "test")
    with raises("evaluation.querybank"):
        evaluate_split(*given, augmentation=tta.TestTimeAugmentation(querybank="test"))
    with raises("evaluation.split", path=data):
        evaluate_split(*given, augmentation=tta.TestTimeAugmentation(querybank="dev"))
