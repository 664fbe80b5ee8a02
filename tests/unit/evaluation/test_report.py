"""Metrics on screen and on disk."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

from rich.console import Console

from tf_dpce.evaluation import tta
from tf_dpce.evaluation.report import metrics_path, metrics_table

METRICS = {
    "image_to_text": {"r1": 27.04, "r5": 58.0, "r10": 71.0, "medr": 4.0, "meanr": 13.25},
    "text_to_image": None,
    "rsum": 156.04,
    "images": 100,
    "unit": "characters",
    "vocabulary": {"known_words": 97.25, "captions_without_known_word": 0.5},
    "cut_off": {"positions": 24, "captions": 1_203, "words": 4_000},
}
DIGEST = "b329218869ccfdb934c832316f7b55c3ec4313066bc05175766a3ebf105e27c8"
IDENTITY = {"r1": 44.4, "r5": 66.3, "r10": 75.1, "medr": 2, "meanr": 9, "map": 40.04, "minp": 25.0}


def shown(metrics: dict) -> str:
    stream = StringIO()
    table = metrics_table(metrics, "tiny on drawn, test, all", DIGEST)
    Console(file=stream, width=80).print(table)
    return " ".join(stream.getvalue().split())


def test_table_shows_what_the_protocol_measures():
    table = shown(METRICS)
    assert "tiny on drawn, test, all" in table
    assert "image to text │ 27.0 │ 58.0 │ 71.0 │ 4.0 │ 13.2" in table
    assert "text to image" not in table and "mAP" not in table
    assert "rsum 156.0" in table
    assert "characters known 97.2 %, captions without one 0.5 %" in table
    assert "captions cut after 24 characters 1,203, characters lost 4,000" in table
    # Twelve digits of the digest.
    assert table.endswith("split b329218869cc")


def test_table_shows_what_few_images_are_worth():
    four = {**METRICS, "images": 4, "text_to_image": {**IDENTITY, "r1": 0.0}}
    four["image_to_text"] = {**METRICS["image_to_text"], "r1": 75.0}
    assert "one of 4 images is 25 points" in shown(four)
    # Of 3 hits of 4: (0.75 + 3.8416 / 8 +- 1.96 sqrt(0.1875 / 4 + 3.8416 / 64)) / (1 + 3.8416 / 4),
    # and of none 3.8416 / (4 + 3.8416).
    assert "R@1: image to text 30 to 95, text to image 0 to 49" in shown(four)
    assert "95 %" not in shown(METRICS)


def test_table_shows_the_precision_of_persons():
    table = shown({**METRICS, "image_to_text": None, "text_to_image": IDENTITY})
    assert "R@1 ┃ R@5 ┃ R@10 ┃ MedR ┃ MeanR ┃ mAP ┃ mINP" in table
    assert "text to image │ 44.4 │ 66.3 │ 75.1 │ 2.0 │ 9.0 │ 40.0 │ 25.0" in table
    assert "image to text" not in table


def test_a_metrics_file_is_named_after_what_it_measures_and_not_replaced(tmp_path, monkeypatch):
    folder = tmp_path / "flickr8k"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def path(digest: str = DIGEST, *measured: object) -> Path:
        return metrics_path(tmp_path, Path("."), "test", "all", digest, *measured)

    plain = tmp_path / "metrics-flickr8k-test-all.json"
    assert path() == plain
    two_sizes = tta.TestTimeAugmentation(True, (224, 288))
    flip = tta.TestTimeAugmentation(flip=True)
    assert path(DIGEST, two_sizes).name == "metrics-flickr8k-test-all-sizes-224-288-flip.json"
    assert path(DIGEST, flip, "last").name == "metrics-flickr8k-test-all-flip-last.json"
    plain.write_text(json.dumps({"split_digest": DIGEST}))
    assert path() == plain, "measured again"
    assert path("0f" * 32).name == "metrics-flickr8k-test-all-0f0f0f0f.json"
    assert metrics_path(tmp_path, folder, "test", "all") == plain
    plain.write_text("{")
    assert path("0f" * 32) == plain, "there is nothing to keep"
