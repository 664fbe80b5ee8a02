"""`evaluate`: a run and prepared data in, a table and a metrics file out."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from pipelines import evaluate
from tests.errors import printed_code
from tests.unit.export.tiny import pairs_to_calibrate, tiny_data
from tf_dpce.data.manifest import VOCABULARY_FILE, Manifest
from tf_dpce.data.prepare import prepare
from tf_dpce.datasets import listing
from tf_dpce.files import sha256_file


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work") / "drawn"
    return folder, tiny_data(folder)


def test_evaluate_leaves_the_metrics_in_the_run(run, data, capsys):
    folder, manifest = data
    arguments = ["--run", str(run), "--data", str(folder), "--split", "test", "--protocol", "all"]
    assert evaluate.main([*arguments, "--checkpoint", "best"]) == 0

    path = run / "metrics-drawn-test-all.json"
    shown = capsys.readouterr().out
    assert "R@1" in shown
    assert shown.splitlines()[-1] == str(path)
    metrics = json.loads(path.read_text())
    for direction in ("image_to_text", "text_to_image"):
        assert list(metrics[direction]) == ["r1", "r5", "r10", "medr", "meanr"]
        # 3 images: any of them is among the first 5.
        assert metrics["text_to_image"]["r5"] == 100
    assert metrics["split_digest"] == manifest.split_digest
    assert (metrics["images"], metrics["captions"]) == (3, 6)
    assert (metrics["split"], metrics["checkpoint"]) == ("test", "best")
    weights = run / "checkpoints" / "stage1-best.npz"
    assert metrics["checkpoint_sha256"] == sha256_file(weights)
    assert metrics["command"].endswith("--protocol all --checkpoint best")
    # Its captions are drawn from the run's own words.
    assert metrics["vocabulary"] == {"known_words": 100, "captions_without_known_word": 0}
    assert "words known 100.0 %, captions without one 0.0 %" in shown
    assert metrics["cut_off"]["captions"] == metrics["cut_off"]["words"] == 0
    assert f"split {manifest.split_digest[:12]}" in shown


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    """Another data set: in each split two images of one person, one of another."""
    folder = tmp_path_factory.mktemp("work") / "people"
    folder.mkdir()
    # Of the run's words: a, dog, sleep; 3 of 9. The second caption has none.
    captions = ("A man walks his dog", "ein Mann", "they sleep")
    images = []
    for split in listing.SPLITS:
        for number, caption in enumerate(captions):
            path = folder / f"{split}{number}.png"
            Image.new("RGB", (40, 40), (80 * number, 255 - 90 * number, 60)).save(path)
            person = f"{split} person {number // 2}"
            images.append(listing.Image(path.name, path, [caption], split, person))
    prepare(images, folder, source="table")
    return folder


def test_persons_are_found_in_data_that_the_run_was_not_trained_on(run, people, capsys):
    assert sha256_file(people / VOCABULARY_FILE) != sha256_file(run / VOCABULARY_FILE)
    arguments = ["--run", str(run), "--data", str(people), "--protocol", "cuhk_pedes"]
    assert evaluate.main(arguments) == 0

    path = run / "metrics-people-test-cuhk_pedes.json"
    shown = capsys.readouterr().out
    assert shown.splitlines()[-1] == str(path)
    assert "mINP" in shown and "image to text" not in shown
    assert "words known 33.3 %, captions without one 33.3 %" in " ".join(shown.split())
    metrics = json.loads(path.read_text())
    assert metrics["image_to_text"] is None
    found = metrics["text_to_image"]
    assert list(found) == ["r1", "r5", "r10", "medr", "meanr", "map", "minp"]
    assert metrics["rsum"] == pytest.approx(found["r1"] + 200)
    # Two hits among three images are at ranks 2 and 3 at worst, one alone at rank 3.
    assert found["map"] >= 100 * (2 * (1 / 2 + 2 / 3) / 2 + 1 / 3) / 3
    assert metrics["vocabulary"]["captions_without_known_word"] == pytest.approx(100 / 3)


def test_an_augmented_measurement_stands_beside_the_plain_one(run, data, capsys):
    # 32 is the size of training: of a small backbone, the only one.
    options = ["--sizes", "32", "32", "--flip", "--querybank", "train"]
    assert evaluate.main(["--run", str(run), "--data", str(data[0]), *options]) == 0
    path = run / "metrics-drawn-test-all-sizes-32-flip-querybank-train.json"
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    metrics = json.loads(path.read_text())
    changed = {"flip": True, "sizes": [32], "float16": False, "querybank": "train"}
    assert changed.items() <= metrics.items()
    ending = "--checkpoint best --sizes 32 --flip --querybank train"
    assert metrics["command"].endswith(ending)


def test_probabilities_are_calibrated_on_one_split_and_measured_on_another(run, tmp_path, capsys):
    data = pairs_to_calibrate(tmp_path / "pairs")
    options = ["--run", str(run), "--data", str(data), "--querybank", "train", "--calibration"]
    assert evaluate.main(options) == 0

    shown = capsys.readouterr().out
    assert "expected calibration error" in shown
    path, figure = map(Path, shown.splitlines()[-2:])
    assert figure.name == path.name.replace("metrics", "reliability").replace(".json", ".png")
    with Image.open(figure) as image:
        assert image.size == (1080, 552)
    metrics = json.loads(path.read_text())
    assert metrics["command"].endswith("--querybank train --calibration")
    for direction in ("image_to_text", "text_to_image"):
        (archive,) = metrics["calibration"][direction]
        assert archive["items"] == 25
        # 25 queries, with the right item and without.
        assert sum(count for *_, count in archive["reliability"]) == 50
        assert archive["error"] == pytest.approx(
            sum(count * abs(p - share) for p, share, count in archive["reliability"]) / 50
        )


def test_the_last_checkpoint_does_not_take_the_place_of_the_best(run, data):
    options = ["--run", str(run), "--data", str(data[0])]
    checkpoints = run / "checkpoints"
    shutil.copy(checkpoints / "stage1-best.npz", checkpoints / "stage1-epoch0001-step000000.npz")
    for checkpoint, name in (("best", "test-all"), ("last", "test-all-last")):
        assert evaluate.main([*options, "--checkpoint", checkpoint]) == 0
        metrics = json.loads((run / f"metrics-drawn-{name}.json").read_text())
        assert metrics["checkpoint"] == checkpoint


def test_mistakes_are_one_line(run, data, capsys):
    for option, value, code in (
        ("--sizes", "48", "model.image_size"),
        ("--checkpoint", "last", "checkpoint.missing"),
    ):
        options = {"--run": str(run), "--data": str(data[0]), option: value}
        assert evaluate.main([part for pair in options.items() for part in pair]) == 1
        assert printed_code(capsys.readouterr().err) == code
        assert not list(run.glob("metrics-*"))
    for split, code in (("val", "evaluation.calibration"), ("test", "calibration.few")):
        options = ["--run", str(run), "--data", str(data[0]), "--split", split, "--calibration"]
        assert evaluate.main(options) == 1
        assert printed_code(capsys.readouterr().err) == code


EVIL = '<img src=x onerror="alert(1)">&amp;'
# Of a run that has validated three epochs.
HISTORY = "stage,epoch,learning_rate,val_rsum\n1,1,0.1,100\n1,2,0.1,200\n1,3,0.1,300\n"


@pytest.fixture(scope="module")
def strange(tmp_path_factory) -> Path:
    """Prepared data whose names and captions are no HTML, one caption an image."""
    folder = tmp_path_factory.mktemp("strange") / EVIL.replace("/", "")
    images = []
    for split in listing.SPLITS:
        for number, caption in enumerate((f"a dog {EVIL}", "一只狗 $cats ${sleep}")):
            path = folder / "images" / f"{split}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (90 * number, 9, 60)).save(path)
            images.append(listing.Image(f"{split} {number} {EVIL}", path, [caption], split))
    prepare(images, folder, source="table", lowercase=True)
    shutil.rmtree(folder / "images")
    return folder


class Links(HTMLParser):
    """The addresses that a page loads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "iframe", "object")
        self.found += [value for name, value in attrs if name in ("src", "srcset", "href")]


def test_a_report_is_one_page_and_a_file_for_each_figure(run, strange, tmp_path, capsys):
    (run / "history.csv").write_text(HISTORY)
    config = json.loads((run / "config.json").read_text())
    config["data"]["split_digest"] = Manifest.load(strange).split_digest
    (run / "config.json").write_text(json.dumps(config))
    (tmp_path / "curve.csv").write_text("images,seed,rsum\n10,0,20\n20,0,200\n")
    out = tmp_path / "report"
    out.mkdir()
    options = ["--data", str(strange), "--querybank", "val", "--flip", "--report", str(out)]
    options += ["--learning-curve", str(tmp_path / "curve.csv")]
    assert evaluate.main(["--run", str(run), *options]) == 0

    shown = capsys.readouterr().out.splitlines()
    figures = ("ranks", "lengths", "epochs", "amount")
    files = {f"{name}.{kind}" for name in figures for kind in ("png", "csv")} | {"report.html"}
    assert {path.name for path in out.iterdir()} == files
    assert {str(out / name) for name in files} <= set(shown)
    page = (out / "report.html").read_text()
    # Names and captions are text, and nothing comes from elsewhere.
    assert EVIL not in page and "onerror=&#34;alert(1)&#34;" in page
    assert "一只狗 $cats ${sleep}" in page
    links = Links(page).found
    assert len(links) > 10 and all(link.startswith("data:") for link in links)
    sections = re.findall(r'<section id="([a-z-]+)"', page)
    assert sections[:4] == ["recall", "ranks", "hardest-misses", "probabilities"]
    assert sections[4:] == ["hubs", "vocabulary", "caption-length", "more-epochs-or-more-pairs"]
    assert all(f'<figure id="figure-{name}">' in page for name in figures)
    # Both directions of two images find the one or the other.
    metrics = json.loads(next(run.glob("metrics-*.json")).read_text())
    assert (out / "ranks.csv").read_text().splitlines()[1:] == [
        f"{title},{rank},{metrics[key]['r1'] if rank == 1 else 100.0}"
        for key, title in (("image_to_text", "image to text"), ("text_to_image", "text to image"))
        for rank in (1, 2)
    ]
    assert (out / "epochs.csv").read_text().splitlines()[1:] == [
        f"stage 1,{epoch},{100.0 * epoch}" for epoch in (1, 2, 3)
    ]

    options[-1] = str(tmp_path / "none.csv")
    for change, code in (
        ([], "report.folder"),
        (["--report", str(tmp_path / "new")], "report.learning_curve"),
        (["--report", str(tmp_path / "curve.csv")], "file.not_writable"),
    ):
        assert evaluate.main(["--run", str(run), *options, *change]) == 1
        assert printed_code(capsys.readouterr().err) == code
    assert not (tmp_path / "new").exists() and {path.name for path in out.iterdir()} == files


def test_a_report_of_other_data_says_nothing_of_the_training(run, people, tmp_path):
    options = ["--protocol", "cuhk_pedes", "--report", str(tmp_path / "report")]
    assert evaluate.main(["--run", str(run), "--data", str(people), *options]) == 0
    files = {path.name for path in (tmp_path / "report").iterdir()}
    figures = ("ranks", "lengths")
    assert files == {"report.html", *(f"{f}.{kind}" for f in figures for kind in ("png", "csv"))}
    assert "image to text" not in (tmp_path / "report" / "ranks.csv").read_text()
