"""`prepare` as a verb: what it prints, what it leaves, and what a kill leaves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.prepare import main
from tests.errors import printed_code, raises
from tests.samples import (
    COCO_SPLITS,
    digests,
    image,
    karpathy_coco,
    person_image,
    write_coco,
    write_flickr8k,
    write_flickr30k,
    write_images,
    write_json,
    write_splits,
)
from tests.unit.datasets.tables import write as write_table
from tf_dpce.data.manifest import Manifest
from tf_dpce.datasets.listing import SPLITS
from tf_dpce.files import sha256_lines

SCENES = ["--source", "scenes", "--train-images", "40", "--val-images", "5", "--test-images", "5"]
USAGE = 2


@pytest.fixture
def flickr8k(tmp_path: Path) -> list[str]:
    root = write_flickr8k(tmp_path / "flickr8k")
    return ["--source", "flickr8k", "--root", str(root)]


def run(*argv: object) -> int:
    return main([str(argument) for argument in argv])


def images(folder: Path) -> dict[str, int]:
    return {name: split.images for name, split in Manifest.load(folder).splits.items()}


# --- what it prints and leaves --------------------------------------------------------------------


def test_flickr8k_with_dirt_prints_both_counts_and_why(flickr8k: list[str], tmp_path: Path, capsys):
    root, out = Path(flickr8k[-1]), tmp_path / "out"
    with (root / "Flickr8k_text" / "Flickr8k.token.txt").open("a") as stream:
        stream.write("gone.jpg#0\tit is\ngone.jpg#1\tno more\ntrain0.jpg#2\t .\n")
    (root / "Flicker8k_Dataset" / "train1.jpg").write_bytes(image()[:60])
    assert run(*flickr8k, "--out", out, "--lowercase", "--workers", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    # Six, two and two images with two captions each, of which one image is cut short.
    for line, (split, count) in zip(lines, {"train": 5, "val": 2, "test": 2}.items(), strict=False):
        assert line.split() == [
            *(split, str(count), "images", str(2 * count), "captions"),
            *(str(count), "instances", "1", "shards"),
        ]
    text = "\n".join(lines)
    assert "9 images with 18 captions" in text and "rejected 3: " in text
    for reason in ("in no split", "empty caption", "cannot be decoded"):
        assert f"1 {reason}" in text
    assert "instances with one image" not in text, "each image is an instance of its own"
    # "A train dog ." has three words, "The dog number w1 ." four.
    assert "100.0 %" in text and "up to 4" in text
    for count in ("5 of the 6,000", "2 of the 1,000"):
        assert count in text and "rejected.jsonl" in text
    files = [Path(line) for line in lines if line.startswith(str(out))]
    assert sorted(files) == sorted(out.iterdir()), "every file is named"


def test_scenes_leave_their_images(tmp_path: Path):
    assert run(*SCENES, "--image-size", 32, "--out", tmp_path) == 0
    assert len(list((tmp_path / "scenes").glob("*.png"))) == 50
    captions = {name: split.captions for name, split in Manifest.load(tmp_path).splits.items()}
    assert captions == {"train": 200, "val": 25, "test": 25}


def test_flickr30k_names_its_split(tmp_path: Path, capsys):
    names = [f"{number}.jpg" for number in range(6)]
    root = write_flickr30k(tmp_path / "flickr30k", names)
    argv = ["--source", "flickr30k", "--root", root]
    assert run(*argv, "--out", tmp_path / "drawn", "--seed", 3) == 0
    printed = capsys.readouterr().out
    assert "--seed 3" in printed and "--split-file" in printed
    assert "4 of the 29,783 published images" in printed
    splits = write_splits(tmp_path / "splits.tsv", dict(zip(names, 2 * SPLITS, strict=True)))
    assert run(*argv, "--out", tmp_path / "given", "--split-file", splits) == 0
    printed = capsys.readouterr().out
    assert "--seed" not in printed
    assert "2 of the 29,783 published images of the authors' split" in printed
    assert images(tmp_path / "given") == {"train": 2, "val": 2, "test": 2}


def test_a_layout_is_recognised_and_its_split_compared(tmp_path: Path, capsys):
    names = [f"{number}.jpg" for number in range(6)]
    write_images(tmp_path / "kaggle" / "Images", names)
    rows = [f"{name},a dog {n}\n" for n, name in enumerate(names)]
    table = tmp_path / "kaggle" / "captions.txt"
    table.write_text("".join(["image,caption\n", *rows]))
    assert run("--root", tmp_path / "kaggle", "--out", tmp_path / "a") == 0
    printed = capsys.readouterr()
    assert Manifest.load(tmp_path / "a").source == "flickr8k"
    for word in ("found Flickr8k", "--source flickr8k", "--split-file", "Flickr8k_text.zip"):
        assert word in printed.err, word
    digest = Manifest.load(tmp_path / "a").split_digest
    assert f"{digest}: the official one is b3292188" in printed.out
    # A table says nothing about where its images are; its own folder has none.
    table = table.rename(tmp_path / "kaggle" / "pairs.csv")
    for places in (("--images",), ("--root",)):
        argv = ["--annotations", table, *places, tmp_path / "kaggle" / "Images"]
        assert run(*argv, "--out", tmp_path / "b") == 0
        assert Manifest.load(tmp_path / "b").source == "table"
        assert sum(images(tmp_path / "b").values()) == 6
    capsys.readouterr()
    assert run("--root", tmp_path / "kaggle" / "Images", "--out", tmp_path / "c") == 1
    assert printed_code(capsys.readouterr().err) == "source.none"


def test_one_split_of_mscoco_has_one_digest_from_either_source(tmp_path: Path, capsys):
    root = write_coco(tmp_path / "coco")
    value = {"images": karpathy_coco()}
    karpathy = write_json(tmp_path / "dataset_coco.json", value)
    splits = write_splits(tmp_path / "splits.tsv", COCO_SPLITS)
    official = ["--source", "mscoco", "--root", root, "--split-file", splits]
    assert run(*official, "--out", tmp_path / "a") == 0
    capsys.readouterr()
    argv = ["--source", "karpathy", "--root", root, "--annotations", karpathy]
    assert run(*argv, "--out", tmp_path / "b") == 0
    one, other = Manifest.load(tmp_path / "a"), Manifest.load(tmp_path / "b")
    assert images(tmp_path / "a") == {"train": 2, "val": 1, "test": 1}
    assert (one.source, other.source) == ("mscoco", "karpathy")
    assert one.split_digest == other.split_digest
    assert one.splits == other.splits, "the shards are the same, byte for byte"
    # Karpathy's own sizes are published.
    assert "of the 5,000 published images" in capsys.readouterr().out


def test_people_are_the_classes_of_cuhk_pedes_in_any_split(tmp_path: Path, capsys):
    # Persons 11 and 13 have one image, and their numbers are not dense.
    people = {"cam_a/1.png": 11, "cam_a/2.png": 12, "cam_b/2.png": 12, "Market/3.jpg": 13}
    people |= {"CUHK01/4.png": 14, "CUHK01/5.png": 14, "cam_a/000_45.bmp": 14}
    splits = ("train", "train", "train", "val", "test", "test", "test")
    write_images(tmp_path / "imgs", people)
    listed = zip(people.items(), splits, strict=True)
    write_json(tmp_path / "reid_raw.json", [person_image(*item, split) for item, split in listed])
    assert run("--source", "cuhk_pedes", "--root", tmp_path, "--out", tmp_path / "out") == 0
    infos = Manifest.load(tmp_path / "out").splits.values()
    counts = [(info.images, info.instances, info.lone_instances) for info in infos]
    assert counts == [(3, 2, 1), (1, 1, 1), (3, 1, 0)]
    printed = capsys.readouterr().out
    assert "1 images of other formats" in printed and "2 of the 11,003 published people" in printed
    assert "train 1, val 1, test 0\n" in printed
    # A file replaces the split that the data set comes with; what is published is another's size.
    given = {name: "test" if name[0] == "M" else "val" for name in people if name[0] != "c"}
    given |= dict.fromkeys(("cam_a/2.png", "cam_b/2.png", "gone.png"), "train")
    listed = write_splits(tmp_path / "splits.tsv", given)
    argv = ["--source", "cuhk_pedes", "--root", tmp_path, "--split-file", listed]
    assert run(*argv, "--out", tmp_path / "given") == 0
    assert images(tmp_path / "given") == {"train": 2, "val": 2, "test": 1}
    lines = sorted(f"{split}\t{name}" for name, split in given.items() if name != "gone.png")
    assert Manifest.load(tmp_path / "given").split_digest == sha256_lines(lines)
    printed = capsys.readouterr().out
    assert "2 in no split" in printed and "1 no caption" in printed and "published" not in printed


# --- mistakes -------------------------------------------------------------------------------------


def test_captions_lead_to_the_folder_of_a_dataset(flickr8k: list[str], tmp_path: Path, capsys):
    folder = Path(flickr8k[-1]) / "Flickr8k_text"
    assert run("--source", "flickr8k", "--annotations", folder, "--out", tmp_path / "out") == 0
    # Its splits are so small that training does not compare its epochs.
    assert "takes the last epoch" in capsys.readouterr().out


def test_options_that_do_not_go_together_are_bad_usage(tmp_path: Path, capsys):
    for line in (
        "flickr8k",
        "table --images .",
        "table --annotations a.csv --root .",
        "scenes --split-file splits.tsv",
        "flickr8k --root . --image-size 64",
        "karpathy --root .",
        "mscoco --root . --images .",
        "flickr --root .",
        "scenes --workers 0",
        "auto",
        "folder --root . --annotations a.csv",
        "scenes --train-images none",
    ):
        with pytest.raises(SystemExit) as exit:
            run("--source", *line.split(), "--out", tmp_path / "out")
        assert exit.value.code == USAGE, line
        assert "error:" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_a_mistake_is_one_line_and_leaves_nothing(flickr8k: list[str], tmp_path: Path, capsys):
    table, root = tmp_path / "pairs.csv", flickr8k[-1]
    table.write_text("image,words\nd.jpg,a dog\n")
    listed = tmp_path / "dataset_flickr8k.json"
    listed.write_text('{"images": [{"filename": ')
    for argv, named, code in (
        (["table", "--annotations", table], table, "table.columns"),
        (["karpathy", "--root", root, "--annotations", listed], listed, "dataset.json"),
        (["flickr8k", "--root", root, "--vectors", tmp_path], tmp_path, "vectors.file"),
    ):
        assert run("--source", *argv, "--out", tmp_path / "out") == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert printed_code(line) == code and str(named) in line
        assert not (tmp_path / "out" / "manifest.json").exists()


def test_images_inside_a_table_become_files_and_a_rerun_gives_the_same(tmp_path: Path, capsys):
    names = ["train-0.parquet", "train-1.parquet", "validation.parquet", "test.parquet"]
    for number, name in enumerate(names):
        value = {"bytes": image("PNG", size=(9 + number, 7)), "path": f"{number}.png"}
        row = {"photo": value, "en": "a dog", "de": f"Hund {number}"}
        (tmp_path / "data").mkdir(exist_ok=True)
        write_table(tmp_path / "data" / name, [row])
    argv = ["--source", "table", "--annotations", tmp_path / "data", "--image-column", "photo"]
    argv += ["--caption-column", "en", "de", "--out", tmp_path / "out"]
    found = []
    for _ in range(2):
        assert run(*argv) == 0
        found.append(digests(tmp_path / "out"))
    assert found[0] == found[1]
    assert images(tmp_path / "out") == {"train": 2, "val": 1, "test": 1}
    assert "stored 4 images with 8 captions" in capsys.readouterr().out
    assert (tmp_path / "out" / "images" / "2.png").read_bytes() == image("PNG", size=(11, 7))
    # The user's own files are neither replaced nor mixed with others.
    (tmp_path / "mine" / "images").mkdir(parents=True)
    (tmp_path / "mine" / "images" / "0.png").write_bytes(b"mine")
    capsys.readouterr()
    assert run(*argv[:-1], tmp_path / "mine") == 1
    assert printed_code(capsys.readouterr().err) == "extracted.folder"
    assert [path.name for path in (tmp_path / "mine" / "images").iterdir()] == ["0.png"]


# --- kills ----------------------------------------------------------------------------------------

# Children that end themselves, without any clean-up, before they rename a file for the n-th time.
# TensorFlow is imported once for all of them; no operation runs before they are forked.
KILLED_AT_RENAME = """
import os, signal, sys
import tensorflow
from pipelines.prepare import main
folder, numbers, *argv = sys.argv[1:]
for number in numbers.split(","):
    child = os.fork()
    if child == 0:
        rename, left = os.replace, int(number)
        def replace(source, target):
            global left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(source, target)
        os.replace = replace
        os._exit(main([*argv, "--out", f"{folder}/{number}"]))
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
"""


def kill(folder: Path, numbers: str, argv: list[str]) -> None:
    """Runs the verb into `folder/NUMBER` and ends it before the rename of that number."""
    command = [sys.executable, "-c", KILLED_AT_RENAME, str(folder), numbers, *argv]
    subprocess.run(command, check=True, capture_output=True)


def check_unfinished_then_whole(out: Path, argv: list, expected: dict[str, str]) -> None:
    """After a kill no reader takes the folder for whole; run again, it is as if never killed."""
    with raises("data.unfinished", out):
        Manifest.load(out)
    assert run(*argv, "--out", out) == 0
    assert digests(out) == expected, "the same bytes, and nothing else"


@pytest.mark.process
def test_killed_after_drawing_over_an_earlier_set(tmp_path: Path):
    out, argv = tmp_path / "2", [*SCENES, "--seed", "1", "--image-size", "32"]
    assert run(*argv, "--out", out) == 0
    expected = digests(out)
    assert run(*argv, "--seed", "2", "--out", out) == 0
    assert digests(out) != expected
    # The list of what may be replaced is renamed before the drawing, the vocabulary after it.
    kill(tmp_path, "2", argv)
    check_unfinished_then_whole(out, argv, expected)


@pytest.mark.process
def test_killed_before_and_while_publishing(flickr8k: list[str], tmp_path: Path):
    whole = tmp_path / "whole"
    assert run(*flickr8k, "--out", whole) == 0
    expected = digests(whole)
    # The vocabulary is renamed first, within the temporary folder, then the list of what may be
    # replaced: from then on the shards, the lists and the manifest.
    outs = {number: shutil.copytree(whole, tmp_path / str(number)) for number in (1, 3, 8)}
    (outs[3] / "features").mkdir()
    kill(tmp_path, "1,3,8", flickr8k)
    before = outs.pop(1)
    # Until then the folder of before stays whole.
    left = {name: digest for name, digest in digests(before).items() if name[0] != "."}
    assert left == expected
    Manifest.load(before)
    assert run(*flickr8k, "--out", before) == 0
    assert digests(before) == expected
    for out in outs.values():
        check_unfinished_then_whole(out, flickr8k, expected)
