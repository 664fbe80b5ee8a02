"""`prepare` as a verb: what it says, what it leaves, and what a kill leaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from pipelines.prepare import main
from tests.samples import (
    COCO_SPLITS,
    digests,
    image,
    karpathy_coco,
    karpathy_image,
    person_image,
    write_flickr8k,
    write_flickr30k,
    write_images,
    write_json,
    write_mscoco,
)
from tf_dpce.data.manifest import Manifest
from tf_dpce.datasets.pair import SPLITS
from tf_dpce.errors import UserError
from tf_dpce.files import sha256_lines, sole_writer

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


# --- what it says and leaves ----------------------------------------------------------------------


def test_flickr8k_with_dirt_says_both_counts_and_why(flickr8k: list[str], tmp_path: Path, capsys):
    root, out = Path(flickr8k[-1]), tmp_path / "out"
    with (root / "Flickr8k_text" / "Flickr8k.token.txt").open("a") as stream:
        stream.write("gone.jpg#0\tit is\ngone.jpg#1\tno more\nodd.jpg.1#0\ta name\n")
        stream.write("train0.jpg#2\t .\n")
    (root / "Flicker8k_Dataset" / "train1.jpg").write_bytes(image()[:60])
    assert run(*flickr8k, "--out", out, "--lowercase", "--workers", 2) == 0
    said = capsys.readouterr().out.splitlines()
    # Six, two and two images with two captions each, of which one image is cut short.
    assert said[:3] == [
        "train        5 images        10 captions       5 instances   1 shards",
        "val          2 images         4 captions       2 instances   1 shards",
        "test         2 images         4 captions       2 instances   1 shards",
    ]
    # No word of instances with one image: each image is an instance of its own.
    assert said[3] == "kept 9 images with 18 captions"
    assert said[4].startswith("rejected 4: ")
    for reason in ("no such file", "malformed name", "empty caption", "cannot be decoded"):
        assert f"1 {reason}" in said[4]
    assert said[5].startswith("vocabulary of ") and "100.0 %" in said[5]
    # "A train dog ." has three words, "The dog number w1 ." four.
    assert said[6] == "training captions hold up to 4 of these words, 99 % of them up to 4"
    assert said[7:10] == [
        "train has 5 of the 6,000 published images: 5,995 are missing, see rejected.jsonl",
        "val has 2 of the 1,000 published images: 998 are missing, see rejected.jsonl",
        "test has 2 of the 1,000 published images: 998 are missing, see rejected.jsonl",
    ]
    assert [Path(line) for line in said[10:]] == [
        *(out / name for name in ("rejected.jsonl", "test-00000-of-00001.tfrecord")),
        *(out / f"{split}-00000-of-00001.tfrecord" for split in ("train", "val")),
        *(out / name for name in ("vocabulary.txt", "manifest.json")),
    ], "every file is named"
    assert all(Path(line).is_file() for line in said[10:])


def test_vectors_make_a_dictionary_and_the_coverage_is_said(
    flickr8k: list[str], tmp_path: Path, capsys
):
    vectors = tmp_path / "vectors.npz"
    np.savez(vectors, words=np.array(["dog"]), vectors=np.ones((1, 4), np.float32))
    assert run(*flickr8k, "--out", tmp_path / "out", "--vectors", vectors) == 0
    # "A train dog ." and "The dog number w1 .": two words of seven.
    assert "vocabulary of 1 words, 28.6 % of" in capsys.readouterr().out


def test_word_vectors_that_may_be_cut_short_are_told(flickr8k: list[str], tmp_path: Path, capsys):
    vectors = tmp_path / "glove.txt"
    vectors.write_text("dog 0.5 0.823")
    assert run(*flickr8k, "--out", tmp_path / "out", "--vectors", vectors) == 0
    said = capsys.readouterr().out
    assert f"warning: {vectors} has no line end behind its last line, 1: if the file was" in said


def test_scenes_leave_their_images_and_the_same_seed_the_same_ones(tmp_path: Path):
    for out, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert run(*SCENES, "--seed", seed, "--image-size", 32, "--out", tmp_path / out) == 0
    drawn = {out: digests(tmp_path / out / "scenes") for out in "abc"}
    assert len([name for name in drawn["a"] if name.endswith(".png")]) == 50
    assert drawn["a"] == drawn["b"] != drawn["c"]
    manifest = Manifest.load(tmp_path / "a")
    assert {name: split.captions for name, split in manifest.splits.items()} == {
        "train": 200,
        "val": 25,
        "test": 25,
    }


def test_a_table_of_ones_own(tmp_path: Path):
    rows = ["image,caption,split"]
    (tmp_path / "photos").mkdir()
    for split in ("train", "val", "test"):
        (tmp_path / "photos" / f"{split}.jpg").write_bytes(image())
        rows.append(f"{split}.jpg,a {split} thing,{split}")
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    table = ["--source", "table", "--annotations", tmp_path / "pairs.csv"]
    assert run(*table, "--images", tmp_path / "photos", "--out", tmp_path / "out") == 0
    assert Manifest.load(tmp_path / "out").splits["val"].images == 1


def test_flickr30k_says_whose_split_it_is(tmp_path: Path, capsys):
    names = [f"{number}.jpg" for number in range(6)]
    root = write_flickr30k(tmp_path / "flickr30k", names)
    argv = ["--source", "flickr30k", "--root", root]
    assert run(*argv, "--out", tmp_path / "drawn", "--seed", 3) == 0
    said = capsys.readouterr().out
    assert "split drawn by --seed 3; --split-file takes a published one" in said
    assert "train has 4 of the 29,783 published images: 29,779 are missing\n" in said
    splits = tmp_path / "splits.tsv"
    splits.write_text("".join(f"{n}\t{s}\n" for n, s in zip(names, 2 * SPLITS, strict=True)))
    assert run(*argv, "--out", tmp_path / "given", "--split-file", splits) == 0
    said = capsys.readouterr().out
    assert "drawn" not in said
    assert "train has 2 of the 29,783 published images of the authors' split: 29,781" in said
    assert images(tmp_path / "given") == {"train": 2, "val": 2, "test": 2}


def test_one_split_of_mscoco_has_one_digest_from_either_source(tmp_path: Path):
    root = write_mscoco(tmp_path / "coco")
    value = {"images": karpathy_coco(), "dataset": "coco"}
    karpathy = write_json(tmp_path / "dataset_coco.json", value)
    splits = tmp_path / "splits.tsv"
    splits.write_text("".join(f"{name}\t{split}\n" for name, split in COCO_SPLITS.items()))
    official = ["--source", "mscoco", "--root", root, "--split-file", splits]
    assert run(*official, "--out", tmp_path / "a") == 0
    argv = ["--source", "karpathy", "--root", root, "--annotations", karpathy]
    assert run(*argv, "--out", tmp_path / "b") == 0
    one, other = Manifest.load(tmp_path / "a"), Manifest.load(tmp_path / "b")
    assert images(tmp_path / "a") == {"train": 2, "val": 1, "test": 1}
    assert (one.source, other.source) == ("mscoco", "karpathy")
    assert one.split_digest == other.split_digest
    assert one.splits == other.splits, "the shards are the same, byte for byte"


def write_source(source: str, root: Path, names: Sequence[str]) -> list[object]:
    """Writes a data set of these images, all for training; returns the options to read it by."""
    argv = ["--source", source, "--root", root]
    if source == "flickr8k":
        write_flickr8k(root, train=len(names), val=0, test=0)
    elif source == "karpathy":
        listed = [karpathy_image(name, "train") for name in names]
        value = {"images": listed, "dataset": "flickr30k"}
        argv += ["--annotations", write_json(root / "dataset.json", value)]
        write_images(root, names)
    else:
        people = [person_image(name, place, "train") for place, name in enumerate(names)]
        write_json(root / "reid_raw.json", people)
        write_images(root / "imgs", names)
    return argv


@pytest.mark.parametrize("source", ["flickr8k", "karpathy", "cuhk_pedes"])
def test_a_split_file_goes_before_the_split_that_a_data_set_comes_with(
    source: str, tmp_path: Path, capsys
):
    names = [f"train{number}.jpg" for number in range(6)]
    argv = write_source(source, tmp_path / "data", names)
    # The last one is left out, and one is named that is not there.
    given = dict(zip([*names[:5], "gone.jpg"], 2 * SPLITS, strict=True))
    splits = tmp_path / "splits.tsv"
    splits.write_text("".join(f"{name}\t{split}\n" for name, split in given.items()))
    assert run(*argv, "--out", tmp_path / "out", "--split-file", splits) == 0
    assert images(tmp_path / "out") == {"train": 2, "val": 2, "test": 1}
    # Lines of split and image in order, as for every other source.
    kept = sorted(f"{split}\t{name}" for name, split in given.items() if name != "gone.jpg")
    assert Manifest.load(tmp_path / "out").split_digest == sha256_lines(kept)
    said = capsys.readouterr().out
    assert "1 in no split" in said and "1 no caption" in said
    assert "published" not in said, "what is published is the size of another split"


def test_images_that_karpathy_names_and_that_are_not_there_are_rejected(tmp_path: Path, capsys):
    names = {f"{split}{n}.jpg": split for split in SPLITS for n in range(2)}
    listed = [karpathy_image(name, split) for name, split in names.items()]
    value = {"images": listed, "dataset": "flickr30k"}
    path = write_json(tmp_path / "dataset_flickr30k.json", value)
    root = write_images(tmp_path / "photos", [name for name in names if name != "val0.jpg"])
    argv = ["--source", "karpathy", "--root", root, "--annotations", path]
    assert run(*argv, "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "rejected 1: 1 no such file" in said and "split drawn" not in said
    assert "val has 1 of the 1,014 published images: 1,013 are missing, see rejected" in said
    assert str(root / "val0.jpg") in (tmp_path / "out" / "rejected.jsonl").read_text()


def test_people_are_the_classes_of_cuhk_pedes(tmp_path: Path, capsys):
    # Persons 11 and 13 have one image, and their numbers are not dense.
    people = {"cam_a/1.png": 11, "cam_a/2.png": 12, "cam_b/2.png": 12, "Market/3.jpg": 13}
    people |= {"CUHK01/4.png": 14, "CUHK01/5.png": 14, "cam_a/000_45.bmp": 14}
    splits = ("train", "train", "train", "val", "test", "test", "test")
    write_images(tmp_path / "imgs", people)
    listed = zip(people.items(), splits, strict=True)
    write_json(tmp_path / "reid_raw.json", [person_image(*item, split) for item, split in listed])
    assert run("--source", "cuhk_pedes", "--root", tmp_path, "--out", tmp_path / "out") == 0
    infos = Manifest.load(tmp_path / "out").splits
    counts = {name: (info.images, info.instances) for name, info in infos.items()}
    assert counts == {"train": (3, 2), "val": (1, 1), "test": (3, 1)}
    said = capsys.readouterr().out
    assert "rejected 0\n1 BMP images stored as PNG\n" in said
    assert "train has 2 of the 11,003 published people: 11,001 are missing\n" in said
    assert {name: info.lone_instances for name, info in infos.items()} == {
        "train": 1,
        "val": 1,
        "test": 0,
    }
    assert "instances with one image: train 1, val 1, test 0\n" in said


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        ["--source", "flickr8k"],
        ["--source", "table"],
        ["--source", "table", "--images", "."],
        ["--source", "scenes", "--root", "."],
        ["--source", "scenes", "--split-file", "splits.tsv"],
        ["--source", "flickr8k", "--root", ".", "--train-images", "9"],
        ["--source", "flickr8k", "--root", ".", "--image-size", "64"],
        ["--source", "table", "--annotations", "a.csv", "--val-images", "9"],
        ["--source", "table", "--annotations", "a.csv", "--test-images", "500"],
        ["--source", "flickr30k"],
        ["--source", "karpathy", "--root", "."],
        ["--source", "karpathy", "--annotations", "dataset_coco.json"],
        ["--source", "mscoco", "--root", ".", "--images", "."],
        ["--source", "karpathy", "--root", ".", "--split-file", "splits.tsv"],
        ["--source", "flickr", "--root", "."],
        ["--source", "scenes", "--workers", "0"],
        ["--source", "scenes", "--train-images", "none"],
    ],
    ids=" ".join,
)
def test_options_that_do_not_go_together_are_bad_usage(argv: list[str], tmp_path: Path, capsys):
    with pytest.raises(SystemExit) as exit:
        run(*argv, "--out", tmp_path / "out")
    assert exit.value.code == USAGE
    assert "error:" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mistake", ["no vectors", "no captions", "broken table", "cut short"])
def test_a_mistake_is_one_line_and_leaves_nothing(
    mistake: str, flickr8k: list[str], tmp_path: Path, capsys
):
    argv, named = flickr8k, tmp_path / "missing.npz"
    if mistake == "no vectors":
        argv = [*flickr8k, "--vectors", str(named)]
    elif mistake == "no captions":
        named = Path(flickr8k[-1]) / "Flickr8k_text" / "Flickr8k.token.txt"
        named.write_text("\n")
    elif mistake == "cut short":
        named = tmp_path / "dataset_flickr8k.json"
        named.write_text('{"images": [{"filename": ')
        argv = ["--source", "karpathy", "--root", flickr8k[-1], "--annotations", str(named)]
    else:
        named = tmp_path / "pairs.csv"
        named.write_text("image,caption\nonly one\n")
        argv = ["--source", "table", "--annotations", str(named)]
    assert run(*argv, "--out", tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and str(named) in line
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("before", [[], ["another data set"]], ids=["empty", "prepared"])
def test_a_folder_named_scenes_of_somebody_else_is_refused_and_left_as_it_is(
    before: list[str], flickr8k: list[str], tmp_path: Path, capsys
):
    out = tmp_path / "out"
    if before:
        assert run(*flickr8k, "--out", out) == 0
    (out / "scenes").mkdir(parents=True)
    (out / "scenes" / "000001.png").write_bytes(b"a holiday")
    left = digests(out)
    capsys.readouterr()
    assert run(*SCENES, "--out", out) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{out / 'scenes'} holds files that were not drawn" in line
    assert digests(out) == left


def test_scenes_are_not_drawn_among_other_files(tmp_path: Path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert run(*SCENES, "--out", tmp_path) == 1
    assert "holds notes.txt, which prepare did not write" in capsys.readouterr().err
    assert list(digests(tmp_path)) == ["notes.txt"]


def test_a_folder_that_is_being_written_is_one_line(flickr8k: list[str], tmp_path: Path, capsys):
    (tmp_path / "out").mkdir()
    for argv in (flickr8k, SCENES):
        with sole_writer(tmp_path / "out"):
            assert run(*argv, "--out", tmp_path / "out") == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "another process is writing to" in line
    assert digests(tmp_path / "out") == {}


# --- kills ----------------------------------------------------------------------------------------

# A process that ends itself, without any clean-up, before it renames a file for the n-th time.
KILLED_AT_RENAME = """
import os, signal, sys
rename, left = os.replace, int(sys.argv[1])
def replace(source, target):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.replace = replace
from pipelines.prepare import main
sys.exit(main(sys.argv[2:]))
"""


def start(*argv: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *map(str, argv)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def kill_when(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    while not condition() and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it ended before its moment came"


def check_unfinished_then_whole(out: Path, argv: list, expected: dict[str, str]) -> None:
    """After a kill no reader takes the folder for whole; run again, it is as if never killed."""
    with pytest.raises(UserError, match="run prepare"):
        Manifest.load(out)
    assert run(*argv, "--out", out) == 0
    assert digests(out) == expected, "the same bytes, and nothing else"
    Manifest.load(out)


def test_killed_while_drawing_and_while_decoding(tmp_path: Path):
    out = tmp_path / "out"
    argv = [*SCENES[:3], "400", *SCENES[4:], "--workers", "1"]
    assert run(*argv, "--out", out) == 0
    expected = digests(out)

    def drawn() -> bool:
        return len(list(out.glob("scenes/*.png"))) > 100

    def decoding() -> bool:
        return bool(list(out.glob(".prepare.*.tmp/train-*")))

    for moment in (drawn, decoding):
        shutil.rmtree(out)
        kill_when(start("-m", "pipelines.prepare", *argv, "--out", out), moment)
        check_unfinished_then_whole(out, argv, expected)


# The vocabulary is renamed first, aside, then the list of what may be replaced: from then on the
# shards, the lists and the manifest.
@pytest.mark.parametrize("rename", [3, 5, 8])
def test_killed_while_publishing(rename: int, flickr8k: list[str], tmp_path: Path):
    out = tmp_path / "out"
    assert run(*flickr8k, "--out", out) == 0
    expected = digests(out)
    (out / "features").mkdir()
    process = start("-c", KILLED_AT_RENAME, rename, *flickr8k, "--out", out)
    assert process.wait() == -signal.SIGKILL
    check_unfinished_then_whole(out, flickr8k, expected)


def test_killed_while_drawing_over_an_earlier_set(tmp_path: Path):
    out = tmp_path / "out"
    assert run(*SCENES, "--out", out) == 0
    expected = digests(out)
    argv = [*SCENES[:3], "400", *SCENES[4:], "--workers", "1"]

    def redrawing() -> bool:
        return len(list(out.glob("scenes/*.png"))) > 100

    kill_when(start("-m", "pipelines.prepare", *argv, "--out", out), redrawing)
    check_unfinished_then_whole(out, SCENES, expected)


def test_killed_before_publishing_the_folder_of_before_stays_whole(
    flickr8k: list[str], tmp_path: Path
):
    out = tmp_path / "out"
    assert run(*flickr8k, "--out", out) == 0
    expected = digests(out)
    process = start("-c", KILLED_AT_RENAME, 1, *flickr8k, "--out", out)
    assert process.wait() == -signal.SIGKILL
    left = {name: digest for name, digest in digests(out).items() if not name.startswith(".")}
    assert left == expected
    Manifest.load(out)
    assert len([path for path in os.listdir(out) if path.startswith(".")]) == 1
    assert run(*flickr8k, "--out", out) == 0
    assert digests(out) == expected
