"""Trains on fewer and fewer of your images, to see whether more of them would help.

    python -m examples.learning_curve --root data/raw/flickr8k --splits splits.tsv --images 40 500
        --seeds 0 1 2 --out curve --name custom -- --preset custom --stage 1

`splits.tsv` has lines of image<TAB>split, as `prepare --split-file` takes them. For each number of
training images and each seed the script draws so many of them, and prepares them with all images of
the other splits, so that the vocabulary holds their words alone. It trains with the options after
`--` and takes the recalls of the last epoch on the validation images. The smaller sets of a seed
are parts of the larger ones. `OUT/curve.csv` gets a row for each run. What is finished is not run
again, so further numbers, seeds and options may follow, each set of options under its own NAME.
"""

from __future__ import annotations

import csv
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

_SUMMARY = "Trains on so many of your images, and writes the recalls to a table."
RECALLS = ("rsum", "i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10")
COLUMNS = ("name", "images", "seed", *RECALLS, "seconds")


def subset(splits: Path, images: int, seed: int) -> str:
    """Returns the lines of a split file with so many training images and all others.

    Raises:
        SystemExit: There are not as many training images.
    """
    rows = [line.split("\t") for line in splits.read_text().splitlines()]
    train = sorted(name for name, split in rows if split == "train")
    if len(train) < images:
        sys.exit(f"{splits} has {len(train)} training images, fewer than {images}")
    random.Random(seed).shuffle(train)
    lines = [(name, "train") for name in train[:images]]
    lines += [(name, split) for name, split in rows if split != "train"]
    return "".join(f"{name}\t{split}\n" for name, split in lines)


def verb(*words: str | Path) -> None:
    """Runs a verb of the project.

    Raises:
        SystemExit: It failed, and has said why.
    """
    command = [sys.executable, "-m", f"pipelines.{words[0]}", *map(str, words[1:])]
    if status := subprocess.run(command, check=False).returncode:
        sys.exit(status)


def train_on(part: Path, data: Path, run: Path, root: Path, options: Sequence[str]) -> None:
    """Prepares the images of a split file, unless that is done, and trains or goes on."""
    if not (data / "manifest.json").exists():
        verb("prepare", "--root", root, "--split-file", part, "--lowercase", "--out", data)
    resume = ["--resume"] if run.exists() else []
    verb("train", "--data", data, "--run", run, *resume, *options)


def scores(run: Path) -> dict[str, str | float]:
    """Returns the recalls that a run ended with and the seconds of its epochs."""
    rows = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
    seconds = sum(float(row["epoch_seconds"]) for row in rows)
    return {name: rows[-1][f"val_{name}"] for name in RECALLS} | {"seconds": round(seconds, 1)}


def main(arguments: Namespace) -> None:
    """Trains what is not in the table yet, smaller sets first."""
    table = arguments.out / "curve.csv"
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = list(csv.DictReader(table.read_text().splitlines())) if table.exists() else []
    done = {(row["name"], row["images"], row["seed"]) for row in rows}
    for images in sorted(arguments.images):
        for seed in arguments.seeds:
            key = (arguments.name, str(images), str(seed))
            if key in done:
                continue
            data = arguments.out / f"data-{images}-{seed}"
            part = data.with_suffix(".tsv")
            part.write_text(subset(arguments.splits, images, seed))
            run = arguments.out / "-".join(key)
            options = ["--seed", str(seed), *arguments.options]
            train_on(part, data, run, arguments.root, options)
            rows.append(dict(zip(COLUMNS, key, strict=False)) | scores(run))
            with table.open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)


def parse(words: Sequence[str]) -> Namespace:
    """Returns the options of the command line; those after `--` are for `train`."""
    parser = ArgumentParser(prog="python -m examples.learning_curve", description=_SUMMARY)
    parser.add_argument("--root", type=Path, required=True, help="as for prepare")
    parser.add_argument("--splits", type=Path, required=True, help="lines of image<TAB>split")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, or to go on in")
    parser.add_argument("--images", type=int, nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--name", default="custom", help="name of these options in the table")
    parser.add_argument("options", nargs="*", default=["--preset", "custom", "--stage", "1"])
    return parser.parse_args(words)


if __name__ == "__main__":
    main(parse(sys.argv[1:]))
