"""Hubs: what is near to everything is found less, by as much as queries of a bank tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.export.tiny import CONFIG, WORDS, tiny_data, tiny_model
from tf_dpce.errors import UserError
from tf_dpce.evaluation import querybank as hubs
from tf_dpce.evaluation import retrieval_metrics
from tf_dpce.evaluation.encoding import SplitEncoder
from tf_dpce.evaluation.protocols import evaluate_split
from tf_dpce.evaluation.querybank import discounted, hubness
from tf_dpce.evaluation.tta import PLAIN, Views
from tf_dpce.evaluation.vocabulary_coverage import count_captions
from tf_dpce.preprocessing.tokenizer import CaptionTokenizer


def unit(draw: np.random.Generator, count: int, width: int = 5) -> np.ndarray:
    vectors = draw.normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_hubness_is_the_mean_cosine_with_the_nearest_queries():
    items = np.eye(2)
    bank = np.array([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    # Cosines: [1, 0.6, -1] and [0, 0.8, 0].
    np.testing.assert_allclose(hubness(items, bank, 1), [1.0, 0.8])
    np.testing.assert_allclose(hubness(items, bank, 2), [0.8, 0.4])
    np.testing.assert_allclose(hubness(items, bank, 3), [0.2, 0.8 / 3], rtol=1e-6)
    np.testing.assert_allclose(hubness(items, bank, 10), hubness(items, bank, 3))


@pytest.mark.parametrize("seed", range(3))
def test_blocks_of_items_change_nothing(seed: int, monkeypatch: pytest.MonkeyPatch):
    draw = np.random.default_rng(seed)
    items, bank = unit(draw, 23), unit(draw, 12)
    expected = [np.mean(sorted(bank @ item)[-4:]) for item in items]
    # At most 5 items at a time.
    monkeypatch.setattr(hubs, "_BLOCK_SCORES", 60)
    np.testing.assert_allclose(hubness(items, bank, 4), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_inner_products_are_cosines_less_half_of_either_hubness(seed: int):
    draw = np.random.default_rng(seed)
    images, texts, image_bank, text_bank = (unit(draw, count) for count in (6, 9, 20, 30))
    found = discounted(images, texts, image_bank, text_bank)
    halves = hubness(images, text_bank)[:, np.newaxis] / 2 + hubness(texts, image_bank) / 2
    np.testing.assert_allclose(found[0] @ found[1].T, images @ texts.T - halves, atol=1e-6)


def test_a_hub_no_longer_stands_before_what_is_right():
    # Three sentences on axes of their own, with an image each whose cosine is 0.5, and a fourth
    # image with its sentence between the three, whose cosine with each is 1 / sqrt(3) = 0.577.
    axes = np.eye(4)
    hub = np.array([[1.0, 1.0, 1.0, 0.0]]) / np.sqrt(3)
    images = np.vstack([0.5 * axes[:3] + np.sqrt(0.75) * axes[3], hub])
    texts, ids = np.vstack([axes[:3], hub]), np.arange(4)
    plain = retrieval_metrics(images, texts, ids, ids)["text_to_image"]
    # Only the fourth sentence finds its image.
    assert (plain["r1"], plain["r5"]) == (25.0, 100.0)

    # Five of the bank's sentences on each axis: of the ten nearest to one of the three images
    # five have 0.5 and five 0, where all ten of the hub have 0.577. So 0.5 - 0.25 / 2 = 0.375
    # comes before 0.577 - 0.577 / 2 = 0.289, and the fourth sentence finds its own at 0.711.
    seen = discounted(images, texts, images, np.repeat(axes[:3], 5, axis=0))
    assert retrieval_metrics(*seen, ids, ids)["text_to_image"]["r1"] == 100.0


@pytest.mark.parametrize("count", [40, 41])
def test_a_collapsed_model_finds_nothing_by_its_bank_either(count: int, monkeypatch):
    # Blocks of 8 rows, of which 41 leave one alone: a product of another kind, rounded otherwise.
    draw, ids = np.random.default_rng(0), np.arange(count)
    monkeypatch.setattr(hubs, "_BLOCK_SCORES", 8 * 30)
    alike = np.repeat(unit(draw, 1, 64), count, axis=0)
    seen = discounted(alike, alike, unit(draw, 30, 64), unit(draw, 30, 64))
    assert retrieval_metrics(*seen, ids, ids)["rsum"] == 0.0


# --- a split -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    tiny_data(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer() -> CaptionTokenizer:
    return CaptionTokenizer(WORDS, max_length=6, lowercase=True)


def test_a_split_is_scored_by_the_hubs_that_another_one_tells(model, data, tokenizer):
    encoder = SplitEncoder(model, tokenizer, CONFIG.image, PLAIN, 2)
    # The tiny data have 3 images and 6 captions a split.
    own, bank = (encoder.embed(data, split, 3, 6, lambda _: None) for split in ("test", "train"))
    vectors = discounted(*(part.vectors for part in (*own, *bank)))
    ids = count_captions(data, "test", tokenizer).images
    expected = retrieval_metrics(*vectors, np.arange(3), ids)
    seen = []

    found = evaluate_split(
        *(model, tokenizer, CONFIG.image, data, "test"),
        batch_size=2,
        progress=lambda *step: seen.append(step),
        views=Views(bank="train"),
    )

    assert {key: found[key] for key in expected} == expected
    # 3 images and 6 captions by 2, of the split and then of the bank.
    steps = (2, 3, 5, 7, 9)
    assert seen == [(done, 18) for done in (*steps, *(9 + step for step in steps))]


def test_a_bank_is_the_first_images_of_its_split(model, data, tokenizer, monkeypatch):
    monkeypatch.setattr("tf_dpce.evaluation.protocols.BANK", 2)
    encoder = SplitEncoder(model, tokenizer, CONFIG.image, PLAIN, 2)
    whole = encoder.embed(data, "train", 3, 6, lambda _: None)
    seen: list[np.ndarray] = []

    def keep(*vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.extend(vectors[2:])
        return discounted(*vectors)

    monkeypatch.setattr("tf_dpce.evaluation.protocols.discounted", keep)
    views = Views(bank="train")
    evaluate_split(model, tokenizer, CONFIG.image, data, "test", views=views)
    captions = count_captions(data, "train", tokenizer).per_image[:2].sum()
    np.testing.assert_allclose(seen[0], whole[0].vectors[:2], atol=1e-6)
    np.testing.assert_allclose(seen[1], whole[1].vectors[:captions], atol=1e-6)


def test_a_split_is_no_bank_for_itself(model, data, tokenizer):
    given = (model, tokenizer, CONFIG.image, data, "test")
    with pytest.raises(
        UserError, match="--bank test is the split that is scored, .* such as train"
    ):
        evaluate_split(*given, views=Views(bank="test"))
    with pytest.raises(UserError, match="has no split dev: one of train, val, test"):
        evaluate_split(*given, views=Views(bank="dev"))


def test_the_bank_is_named_with_the_views():
    assert Views(flip=True, bank="train").options == "--flip --bank train"
    assert Views(bank="train").name == "bank-train"
    assert not PLAIN.were_taken({"bank": "train"}) and PLAIN.were_taken({})
