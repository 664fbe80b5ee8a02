"""What a run says about more epochs and more pairs."""

from __future__ import annotations

import csv
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from tests.errors import raises
from tf_dpce.data.manifest import Manifest, SplitInfo
from tf_dpce.datasets.expected_sizes import PUBLISHED
from tf_dpce.evaluation.html_report import learning
from tf_dpce.evaluation.html_report.learning import Epoch
from tf_dpce.evaluation.html_report.published import published_rows
from tf_dpce.evaluation.html_report.texts import say
from tf_dpce.evaluation.protocols import PROTOCOLS


def run(*rsums: float | None, rates: float = 0.1, end: float = 0.1) -> list[Epoch]:
    """Epochs of a second stage, after one of stage 1 that was better than all."""
    epochs = [Epoch(2, n, rates, rsum) for n, rsum in enumerate(rsums, start=1)]
    return [Epoch(1, 1, 9.0, 599.0), *epochs[:-1], epochs[-1]._replace(learning_rate=end)]


@pytest.mark.parametrize(
    ("epochs", "key"),
    [
        (run(100.0, None, None), "few_validations"),
        # From 2/3 of the epochs to the end, more than 6 points.
        (run(100, 150, 170, 180, 187, 194), "more_epochs"),
        (run(100, 150, 170, 180, 183, 186), "flat"),
        (run(100, 150, 170, 180, 183, 186, end=0.001), "flat_by_schedule"),
        (run(100, 187, 170, 180, 181, 180), "fewer_epochs"),
        # Validated late: the first validation counts.
        (run(None, None, None, None, 150, 180, 182), "more_epochs"),
    ],
)
def test_the_last_stage_says_whether_more_epochs_would_help(epochs, key):
    verdict = learning.on_epochs(epochs, images=1_000)
    assert verdict.key == key
    assert say(*verdict[:1], **verdict.numbers)
    assert learning.on_epochs(epochs, images=19).key == "few_validations"
    # A quarter of the images doubles what counts as chance.
    if key == "more_epochs" and epochs[-1].rsum == 194:
        assert learning.on_epochs(epochs, images=100).key == "flat"


@pytest.mark.parametrize(
    ("seen", "unseen", "key"),
    [
        (590, 300, "by_heart"),
        (400, 300, "half_learnt"),
        (305, 300, "not_learnt"),
        (598, 596, "solved"),
    ],
)
def test_training_pairs_beside_others_say_what_is_lacking(seen, unseen, key):
    verdict = learning.on_pairs(float(seen), float(unseen), images=1_000)
    assert verdict.key == key and say(verdict.key, **verdict.numbers)


def test_a_learning_curve_says_whether_more_pairs_would_help(tmp_path: Path):
    path = tmp_path / "curve.csv"
    path.write_text(
        "images,seed,name,rsum,seconds\n2000,0,a,280,1\n1000,0,a,200,1\n4000,0,a,310,1\n"
        "4000,1,a,330,1\n1000,0,狗,100,1\n4000,0,狗,103,1\n50,0,one,9,1\n"
    )
    curves = learning.read_learning_curve(path)
    assert curves["a"] == {1000: [200], 2000: [280], 4000: [310, 330]}
    verdicts = {name: learning.on_amount(name, each, 1_000) for name, each in curves.items()}
    assert [v.key for v in verdicts.values()] == ["more_pairs", "enough_pairs", "one_amount"]
    # 40 points from 2,000 to 4,000; 3 points for two doublings.
    assert (verdicts["a"].numbers["gain"], verdicts["狗"].numbers["each"]) == (40, 1.5)
    assert all(say(verdict.key, **verdict.numbers) for verdict in verdicts.values())
    assert learning.amount_chart(curves).lines["a"] == [(1000, 200), (2000, 280), (4000, 320)]


@pytest.mark.parametrize(
    ("contents", "line"),
    [
        (b"images,seed,rsum\n100,0,20\n200,0,many\n", 3),
        (b"images,seed,rsum\n0,0,20\n", 2),
        (b"images,seed,rsum\n10,0,nan\n", 2),
        (b"images,seed,rsum\n10,0,601\n", 2),
        (b"images,seed,rsum\n10\n", 2),
        (b"amount,seed,rsum\n10,0,20\n", 2),
        (b"images,seed,rsum\n", None),
        (b"", None),
        (b"\xff\xfe\x00", None),
        (None, None),
    ],
)
def test_a_damaged_learning_curve_is_one_line(tmp_path: Path, contents, line):
    path = tmp_path / "curve.csv"
    if contents is not None:
        path.write_bytes(contents)
    with raises("report.learning_curve", path, line):
        learning.read_learning_curve(path)


def test_a_damaged_history_is_one_line(tmp_path: Path):
    rows = [{"stage": "1", "epoch": "1", "learning_rate": "0.1", "val_rsum": ""}]
    assert learning.read_epochs(rows, tmp_path) == [Epoch(1, 1, 0.1, None)]
    for change in ({"val_rsum": "much"}, {"learning_rate": None}):
        with raises("run.history", tmp_path):
            learning.read_epochs([{**rows[0], **change}], tmp_path)


# --- published rows -------------------------------------------------------------------------------


def manifest(source: str, train: int, test: int) -> Manifest:
    split = SplitInfo(train, train, train, ())
    tests = replace(split, images=test)
    return Manifest(source, 0, True, 1, "", 1.0, "", {"train": split, "test": tests}, 0, {})


@pytest.mark.parametrize(
    ("data", "protocol", "method"),
    [
        (("flickr8k", 6_000, 1_000), "all", "NAA (ResNet)"),
        (("karpathy", 6_000, 1_000), "all", "NAA (ResNet)"),
        (("karpathy", 29_000, 1_000), "all", "VSE-infinity (ResNet-152 grid, BiGRU)"),
        (("karpathy", 82_783, 5_000), "coco5k", "VSE++ (ResNet-152, fine-tuned)"),
        (("mscoco", 113_287, 5_000), "coco1k", "Dual-Path (ResNet), authors' split"),
        (("cuhk_pedes", 34_054, 3_074), "cuhk_pedes", "Dual-Path (ResNet-50)"),
    ],
)
def test_published_rows_are_those_of_data_and_protocol(data, protocol, method):
    rows = published_rows(manifest(*data), "test", protocol)
    assert method in [row["method"] for row in rows]
    assert {row["protocol"] for row in rows} == {protocol}
    source, train, test = data
    assert published_rows(manifest(source, train, test - 1), "test", protocol) == []
    assert published_rows(manifest("table", train, test), "test", protocol) == []


def test_published_numbers_can_be_recalls():
    folder = files("tf_dpce.evaluation.html_report")
    rows = list(csv.DictReader(folder.joinpath("published.csv").read_text().splitlines()))
    assert len(rows) == len({(r["dataset"], r["protocol"], r["method"]) for r in rows})
    for row in rows:
        assert row["source"] and row["protocol"] in PROTOCOLS
        assert row["dataset"] in PUBLISHED
        for way in ("i2t", "t2i"):
            known = [float(v) for k in (1, 5, 10) if (v := row[f"{way}_r{k}"])]
            assert known == sorted(known) and all(0 < value < 100 for value in known)
