"""Every benchmark at a size for tests: a figure for each case, compared with the right one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks import classifier, mining, page, search, serving, step
from benchmarks.timing import Row
from tests.unit.search.plain import embed_images, embed_texts
from tf_dpce.config import Config, from_dict
from tf_dpce.serving import AsyncClient
from tf_dpce.serving.errors import ServingError

CONFIG = from_dict(
    {
        "image": {"backbone": "small", "input_size": 32, "head_dim": 0},
        "text": {"tower": "bag_of_words", "max_length": 16, "word_dim": 4, "widths": [4]},
        "model": {"output_dim": 8},
    }
)


def compared(rows: list[Row]) -> list[tuple[str, str | None]]:
    """Returns the name of each row, and of the row that it is compared with; checks the figures."""
    for row in rows:
        ratio = row.get("ratio", {"low": 1, "median": 1, "high": 1})
        for spread in (row, ratio):
            assert 0 < spread["low"] <= spread["median"] <= spread["high"], row
        if ratio.get("to") == row["name"]:
            assert ratio["low"] == ratio["high"] == 1
    return [(row["name"], row.get("ratio", {}).get("to")) for row in rows]


@pytest.mark.slow
def test_mining_times_every_kind_of_negatives_in_both_settings():
    sizes = {"batch_size": 4, "candidates": 8, "classes": 24, "words": 30}
    *timed, memory = mining.measure(CONFIG, **sizes, rounds=2, image_rounds=1)
    assert compared(timed) == [
        (f"{setting}, {negatives}", f"{setting}, paired")
        for setting in ("cached", "end to end")
        for negatives in ("paired", "mined", "batch")
    ]
    assert memory["unit"] == "MiB"


@pytest.mark.full
def test_a_step_is_timed_with_and_without_the_feature_cache():
    rows = step.measure(CONFIG, batch_size=4, classes=24, words=30, rounds=2)
    assert compared(rows) == [
        ("step", "step"),
        ("step on one batch in memory", "step"),
        ("step", None),
        ("memory of the process, peak", None),
    ]


@pytest.mark.slow
def test_each_classifier_is_compared_with_the_smallest_and_what_does_not_fit_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
):
    small = {"dim": 16, "sampled": 20, "batch_size": 4, "rounds": 2}
    assert compared(classifier.measure(Config(), sizes=(200,), **small)) == [
        ("sampled, 200", "sampled, 200"),
        ("sampled, 200: memory", None),
        ("exact, 200", "sampled, 200"),
        ("exact, 200: memory", None),
    ]
    timed = []
    monkeypatch.setattr(classifier, "_free_bytes", lambda: 1000)
    monkeypatch.setattr(classifier, "_timed", lambda cases, rounds: timed.append(cases) or [])
    classifier.measure(Config(), sizes=(200, 400), **small)
    assert [list(cases) for cases in timed] == [["sampled, 200", "sampled, 400"]]


@pytest.mark.slow
def test_a_server_is_loaded_at_both_endpoints_by_both_ways():
    rows = serving.measure(CONFIG, words=30, clients=(1, 3), seconds=0.3, rounds=1)
    assert compared(rows)[::3] == [
        (f"{endpoint}, {clients} at a time{way}", "an empty model")
        for way in ("", ", REST")
        for clients in (1, 3)
        for endpoint in ("encode_image", "encode_text")
    ]
    units = ["requests a second", "ms, median", "ms, 99 of 100"]
    assert [row["unit"] for row in rows[:3]] == units
    assert rows[0]["ratio"]["median"] < 1, "whoever computes nothing is faster"


@pytest.mark.full
def test_an_index_is_built_asked_and_changed_at_every_size(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    # Every default of a large index, at a size for tests.
    monkeypatch.setattr("tf_dpce.search.index.factories.LARGE", 3_000)
    images = search.image_batches(np.eye(300, 256, dtype=np.float32)[:256], 600)
    assert sum(len(records) for records, _ in images) == 600
    out = embed_images(tmp_path / "images", 40, tmp_path / "out")
    embed_texts(tmp_path / "captions.txt", [f"caption {n}" for n in range(30)], out)
    monkeypatch.setattr(search, "DIMENSION", 8)
    monkeypatch.setattr(search.StoredSentences, "dimension", 8)
    small = {"sizes": (500, 4_000), "rounds": 2, "asked": 10}
    rows = search.measure(CONFIG, embeddings=out, **small)
    names = [name for name, _ in compared(rows)]
    assert {f"{size} images: a page's 24" for size in ("500", "4,000")} <= set(names)
    recalls = [row["median"] for row in rows if row["name"].endswith("recall@10")]
    assert recalls[0] == 100 and recalls[1] > 30, "of drawn vectors an inverted file finds a part"


def test_a_request_that_fails_is_no_figure():
    # Nobody listens at this port.
    client = partial(AsyncClient, "http://127.0.0.1:9", "tiny", retries=0)
    with pytest.raises(ServingError):
        serving.put_load(client, ["a dog"], clients=2, seconds=0.1)


@pytest.mark.full
def test_the_page_is_compared_with_its_search():
    rows = page.measure(CONFIG, sizes=(300,), rounds=2)
    assert compared(rows) == [
        (f"300 images: {page.PAGE}", page.SEARCH),
        (f"300 images: {page.SEARCH}", page.SEARCH),
    ]
    assert rows[0]["ratio"]["median"] > 1, "HTTP comes on top"
