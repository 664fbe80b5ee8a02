"""Probabilities of hits: what they mean, how they are fitted, stored and measured."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.errors import raises
from tests.unit.evaluation.pairs import Pairs, made_up_pairs
from tf_dpce.evaluation import calibration_fit
from tf_dpce.evaluation.calibration import CALIBRATION_FILE, Calibration
from tf_dpce.evaluation.calibration_fit import LEAST_INSTANCES, fit_calibration, logistic_regression
from tf_dpce.evaluation.calibration_report import measure_calibration
from tf_dpce.evaluation.reliability import calibration_error, reliability, roc_area


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return fit_calibration(*made_up_pairs(seed=1, instances=600, vague=0.8))


@pytest.fixture(scope="module")
def measured(calibration):
    return measure_calibration(calibration, *made_up_pairs(seed=2, instances=1_200, vague=0.8))


@pytest.mark.parametrize("direction", ["text_to_image", "image_to_text"])
def test_probabilities_come_true_in_archives_of_every_size(measured, direction):
    # Half of 600 instances were searched at once when it was fitted, here up to 1,200.
    assert [entry["items"] for entry in measured[direction]] == [100, 1_000, 1_200]
    for entry in measured[direction]:
        assert entry["error"] <= 0.05
        assert entry["error_ten_hits"] <= 0.02
        # It would be no art if the model always found what is asked, or never.
        assert 0.1 < entry["right_first"] < 0.9


def test_a_query_that_is_near_to_everything_is_known_by_its_sample(measured):
    # Its cosines are as high in vain as those of others are when the right image is there.
    smallest, *_, largest = measured["text_to_image"]
    assert smallest["area"] >= smallest["area_of_cosine"] + 0.1
    assert largest["area"] >= largest["area_of_cosine"] + 0.02


def test_probabilities_are_those_of_the_formula(calibration):
    images, texts, *_ = made_up_pairs(seed=3, instances=50, vague=0.8)
    query, side = texts[7], calibration.directions["images"]
    hits = images[np.argsort(-images @ query)[:3]]

    def nearest(vector: np.ndarray, sample: np.ndarray) -> float:
        return np.mean(sorted(sample @ vector)[-10:])  # 2 % of 500

    expected = []
    for rank, hit in enumerate(hits):
        cosine = hit @ query
        other = hits[1 if rank == 0 else 0] @ query
        features = (1, cosine, cosine**2, nearest(query, side.items), nearest(hit, side.queries))
        features = (*features, cosine - other, math.log(50))
        logit = sum(weight * x for weight, x in zip(side.weights, features, strict=True))
        expected.append(1 / (1 + math.exp(-logit)))
    found = calibration.probabilities("images", query, hits, corpus=50)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    # The same cosine is worth less among more items.
    more = calibration.probabilities("images", query, hits, corpus=5_000)
    assert (more < found).all() and (found < 1).all() and (more > 0).all()


def test_an_archive_of_one_item_or_none_has_probabilities(calibration):
    images, texts, *_ = made_up_pairs(seed=3, instances=50)
    (only,) = calibration.probabilities("images", texts[0], images[:1], corpus=1)
    assert 0 < only < 1
    assert calibration.probabilities("images", texts[0], images[:0], corpus=0).shape == (0,)


def test_several_right_texts_of_an_image_do_not_speak_against_each_other():
    calibration = fit_calibration(*made_up_pairs(seed=1, instances=400, captions=5))
    measured = measure_calibration(calibration, *made_up_pairs(seed=2, instances=400, captions=5))
    assert [entry["items"] for entry in measured["image_to_text"]] == [500, 2_000]
    for entry in measured["image_to_text"]:
        # Chance alone makes 0.03 of 800 hits in 15 bins. If only one hit could be right, as in a
        # softmax, it would be above 0.2.
        assert entry["error"] <= 0.08


def test_what_is_saved_is_read_without_pickle(calibration, tmp_path):
    calibration.save(tmp_path)
    with np.load(tmp_path / CALIBRATION_FILE, allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays)
    read = Calibration.read(tmp_path / CALIBRATION_FILE)
    assert (read.images, read.texts) == (600, 600)
    assert read.directions["texts"].error == calibration.directions["texts"].error
    images, texts, *_ = made_up_pairs(seed=3, instances=50)
    for kind, query, hits in (("images", texts[0], images[:9]), ("texts", images[0], texts[:9])):
        once, again = (c.probabilities(kind, query, hits, 50) for c in (calibration, read))
        np.testing.assert_allclose(again, once, rtol=0.02)  # float16


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "misfit"])
def test_a_damaged_file_is_named(calibration, tmp_path, damage):
    path = tmp_path / CALIBRATION_FILE
    calibration.save(tmp_path)
    if damage == "other":
        np.savez(path, something=np.zeros(3))
    elif damage == "misfit":
        with np.load(path) as arrays:
            np.savez(path, **{**arrays, "texts.weights": np.zeros(3)})
    else:
        path.write_bytes(path.read_bytes()[:500] if damage == "cut" else b"")
    with raises("calibration.damaged", path):
        Calibration.read(path)


def test_too_few_pairs_are_refused():
    few = made_up_pairs(seed=1, instances=LEAST_INSTANCES - 1)
    with raises("calibration.few"):
        fit_calibration(*few)
    # Images without captions are no pairs.
    many = made_up_pairs(seed=1, instances=LEAST_INSTANCES + 10)
    with raises("calibration.few"):
        fit_calibration(many.images, many.texts[20:], many.image_ids, many.text_ids[20:])
    tiny = Pairs(*(each[:19] for each in few))
    with raises("calibration.few"):
        measure_calibration(fit_calibration(*many), *tiny)


def test_best_hits_are_those_of_a_full_sort_with_and_without_the_right_ones():
    draw = np.random.default_rng(0)
    cosines = draw.normal(size=(5, 30))
    query_ids, item_ids = np.arange(5), np.arange(30) // 2
    pairs = calibration_fit.Pairs(np.eye(30), item_ids, cosines, query_ids)
    there, absent = calibration_fit.searched_hits(pairs, np.arange(15), 5, draw)
    assert sorted(there.queries) == [*range(5)] and there.corpus == 30
    for row, query in enumerate(there.queries):
        ranked = sorted(range(30), key=lambda item: -cosines[query, item])
        assert there.rows[row].tolist() == ranked[:10]
        assert there.right[row].tolist() == [item // 2 == query for item in ranked[:10]]
        wrong = [item for item in ranked if item // 2 != query]
        assert absent.rows[row].tolist() == wrong[:10]
        assert there.cosines[row].tolist() == cosines[query, ranked[:10]].tolist()
    assert not absent.right.any()


def test_logistic_regression_finds_the_weights_that_drew_the_outcomes():
    draw = np.random.default_rng(0)
    features = np.column_stack([np.ones(40_000), draw.normal(3, [1, 0.01], (40_000, 2))])
    weights = np.array([-2.0, 1.5, -50.0])
    weights[0] += 3 * 50 - 3 * 1.5
    outcomes = draw.uniform(size=40_000) < 1 / (1 + np.exp(-features @ weights))
    fitted = logistic_regression(features, outcomes)
    # Three standard errors of the second are about 0.06, of the third about 4.
    assert abs(fitted[1] - 1.5) < 0.06 and abs(fitted[2] + 50) < 4
    # Separable outcomes have no finite optimum without the ridge.
    assert np.isfinite(logistic_regression(features, features[:, 1] > 3)).all()


def test_reliability_and_area_are_those_of_slow_loops():
    draw = np.random.default_rng(0)
    chances = np.append(draw.uniform(size=200), [0.0, 1.0])
    outcomes = draw.uniform(size=202) < chances**2
    bins = reliability(chances, outcomes)
    error = 0.0
    for number in range(15):
        inside = [i for i, p in enumerate(chances) if min(int(p * 15), 14) == number]
        gap = sum(chances[i] for i in inside) - sum(outcomes[i] for i in inside)
        error += abs(gap) / 202
    assert calibration_error(bins) == pytest.approx(error)
    assert sum(count for *_, count in bins) == 202

    positive, negative = np.round(draw.normal(1, 1, 40), 1), np.round(draw.normal(0, 1, 50), 1)
    wins = sum((p > n) + (p == n) / 2 for p in positive for n in negative)
    assert roc_area(positive, negative) == pytest.approx(wins / 2_000)
