"""What the queries of a split found, beside a plain search of one query after the other."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tests.unit.evaluation.pairs import made_up_pairs
from tf_dpce.data.manifest import SplitInfo
from tf_dpce.drawing.charts import Chart
from tf_dpce.evaluation.embed import Embeddings
from tf_dpce.evaluation.embedded_split import EmbeddedSplit
from tf_dpce.evaluation.html_report import calibrated
from tf_dpce.evaluation.html_report.searched import search_split, skewness
from tf_dpce.evaluation.metrics import identity_metrics, retrieval_metrics
from tf_dpce.evaluation.protocols import PROTOCOLS, Protocol
from tf_dpce.evaluation.vocabulary_coverage import CaptionCounts


def drawn(captions: list[int], people: int, seed: int = 0, width: int = 6) -> EmbeddedSplit:
    """A split of random unit vectors; some images are of one person."""
    draw = np.random.default_rng(seed)
    owners = np.repeat(np.arange(len(captions)), captions)
    images = draw.normal(size=(len(captions), width))
    texts = images[owners] + draw.normal(size=(len(owners), width))
    instances = np.arange(len(captions)) % people
    pair = [
        Embeddings((each / np.linalg.norm(each, axis=1, keepdims=True)).astype(np.float32), ids)
        for each, ids in ((images, instances), (texts, instances[owners]))
    ]
    counts = CaptionCounts(np.array(captions), 0, 0, 0, 0, 0)
    return EmbeddedSplit(Path(), "test", None, counts, tuple(pair), *pair)


@pytest.mark.parametrize("direction", ["image_to_text", "text_to_image"])
@pytest.mark.parametrize(
    "protocol",
    [
        PROTOCOLS["all"],
        Protocol(retrieval_metrics, captions=2),
        Protocol(retrieval_metrics, folds=3),
    ],
)
def test_ranks_hubs_and_misses_are_those_of_a_plain_search(direction, protocol):
    embedded = drawn([3, 2, 4] * 12, people=36)
    owners = embedded.counts.images
    # The caption's place among those of its image.
    number_of_image = [m - list(owners).index(owners[m]) for m in range(len(owners))]
    occurrences, ranks = {}, {}
    for fold in range(protocol.folds):
        size = 36 // protocol.folds
        images = [n for n in range(36) if n // size == fold]
        texts = [
            m
            for m in range(len(owners))
            if owners[m] in images and number_of_image[m] < (protocol.captions or 9)
        ]
        queries, items = (images, texts) if direction == "image_to_text" else (texts, images)
        pair = (embedded.images, embedded.texts)
        asked, found = pair if direction == "image_to_text" else pair[::-1]
        occurrences |= dict.fromkeys(items, 0)
        for query in queries:
            scores = {n: float(found.vectors[n] @ asked.vectors[query]) for n in items}
            order = sorted(items, key=lambda n: -scores[n])
            right = [n for n in order if found.instances[n] == asked.instances[query]]
            ranks[query] = (order.index(right[0]) + 1, order[0], right[0])
            for item in order[:10]:
                occurrences[item] += 1

    searched = search_split(embedded, protocol, direction)

    assert dict(zip(searched.queries, searched.ranks, strict=True)) == {
        query: rank for query, (rank, _, _) in ranks.items()
    }
    assert dict(zip(searched.items, searched.occurrences, strict=True)) == occurrences
    image_of = (lambda n: n) if direction == "image_to_text" else (lambda n: owners[n])
    missed = {query: rank for query, (rank, _, _) in ranks.items() if rank > 1}
    images = {image_of(query) for query in missed}
    assert len(searched.misses) == min(8, len(images)) > 2
    assert len({image_of(miss.query) for miss in searched.misses}) == len(searched.misses)
    assert searched.misses[0].rank == max(missed.values())
    for miss in searched.misses:
        assert ranks[miss.query] == (miss.rank, miss.first, miss.right)


def test_persons_are_found_by_any_of_their_images():
    embedded = drawn([1] * 12, people=5)
    searched = search_split(embedded, PROTOCOLS["cuhk_pedes"], "text_to_image")
    pair = (embedded.images, embedded.texts)
    metrics = identity_metrics(*(e.vectors for e in pair), *(e.instances for e in pair))
    assert 100 * np.mean(searched.ranks == 1) == pytest.approx(metrics["text_to_image"]["r1"])
    for miss in searched.misses:
        assert embedded.images.instances[miss.right] == embedded.texts.instances[miss.query]
        assert embedded.images.instances[miss.first] != embedded.texts.instances[miss.query]


def test_two_images_that_are_found_have_no_misses_and_no_hubs():
    embedded = drawn([1, 1], people=2, width=200)
    for direction in ("image_to_text", "text_to_image"):
        searched = search_split(embedded, PROTOCOLS["all"], direction)
        assert searched.ranks.tolist() == [1, 1] and searched.misses == []
        assert searched.occurrences.tolist() == [2, 2] and skewness(searched.occurrences) == 0


def test_what_is_calibrated_on_is_not_measured(monkeypatch):
    drawn_pairs, seen = made_up_pairs(0, 400, captions=2), []
    for name in ("fit_calibration", "measure_calibration"):
        real = getattr(calibrated, name)
        monkeypatch.setattr(calibrated, name, lambda *a, real=real: seen.append(a) or real(*a))
    pair = [
        Embeddings(drawn_pairs.images, drawn_pairs.image_ids),
        Embeddings(drawn_pairs.texts, drawn_pairs.text_ids),
    ]

    def charts(split: str, instances: int, metrics: dict) -> list[Chart]:
        monkeypatch.setattr(calibrated, "split_named", lambda *_: SplitInfo(0, 0, instances, ()))
        embedded = EmbeddedSplit(Path(), split, None, None, tuple(pair), *pair)
        return calibrated.calibration_charts(embedded, metrics)[0]

    assert charts("val", 399, {}) == charts("test", 199, {}) == []
    found = charts("val", 400, {})
    (*_, fitted, _), (_, *_, measured, _) = seen
    assert len(fitted) == len(measured) == 200 and not set(fitted) & set(measured)
    assert [chart.name for chart in found] == [
        "probabilities-image-to-text",
        "probabilities-text-to-image",
    ]
    # Points lie where probabilities come true.
    points = [point for chart in found for line in chart.lines.values() for point in line]
    assert len(points) > 4 and np.mean([abs(x - y) for x, y in points]) < 0.15
    # Elsewhere than on the validation split, what was measured already is drawn.
    archive = {"items": 5, "error": 0.1, "reliability": [(0.2, 0.3, 20), (0.9, 0.8, 19)]}
    (chart,) = charts("test", 200, {"calibration": {"image_to_text": [archive]}})
    assert chart.lines == {"5 items: error 10.0 points": [(0.2, 0.3)]}


@pytest.mark.full
def test_memory_grows_with_captions_and_images_never_with_their_product():
    embedded = drawn([5] * 3_000, people=3_000)
    tracemalloc.start()
    search_split(embedded, PROTOCOLS["all"], "text_to_image")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 15,000 x 3,000 scores of float32 are 172 MiB.
    assert peak < 130 * 2**20
