"""Evaluates a run on a split of prepared data: `python -m pipelines.evaluate`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt

from pipelines._verb import run_verb, say_files, verb_parser

# The options that `command` in a metrics file names, beside those of the augmentation.
_OPTIONS = ("run", "data", "split", "protocol", "checkpoint")
_PROTOCOL_HELP = (
    "all: every image and every caption; coco1k: the mean over five blocks of 1,000 "
    "images; coco5k: 5,000 images with five captions each; cuhk_pedes: captions are queries for "
    "all images of a person"
)


def build_parser() -> ArgumentParser:
    """Returns the verb's parser."""
    parser = verb_parser("evaluate", "Evaluates a run on a split of prepared data.")
    parser.add_argument("--run", type=Path, required=True, help="run folder")
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared data")
    parser.add_argument("--split", default="test", help="train, val or test")
    parser.add_argument("--protocol", default="all", help=_PROTOCOL_HELP)
    parser.add_argument("--checkpoint", choices=["best", "last"], default="best", help="weights")
    parser.add_argument(
        "--flip", action="store_true", help="encode mirrored images too, as the paper's test does"
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=PositiveInt,
        default=[],
        help="image sizes in pixels whose features are added (default: the size of training)",
    )
    parser.add_argument(
        "--float16", action="store_true", help="round weights to float16, as `export --float16`"
    )
    parser.add_argument(
        "--querybank",
        default="",
        metavar="SPLIT",
        help="correct for hubs by querybank normalisation (CSLS) with the images and captions of "
        "another split, such as train",
    )
    return parser


def run(arguments: Namespace) -> None:
    """Evaluates, shows the table and saves it in the run folder."""
    from rich.console import Console

    from tf_dpce.data.checksums import explain_damage
    from tf_dpce.data.manifest import Manifest
    from tf_dpce.evaluation.protocols import evaluate_split, protocol_named, split_named
    from tf_dpce.evaluation.report import metrics_path, metrics_table
    from tf_dpce.evaluation.tta import TestTimeAugmentation
    from tf_dpce.files import sha256_file, write_json
    from tf_dpce.training.run_folder import load_run

    data, split, protocol = arguments.data, arguments.split, arguments.protocol
    protocol_named(protocol)
    split_named(data, split)
    digest = Manifest.load(data).split_digest
    trained = load_run(arguments.run, arguments.checkpoint)
    augmentation = TestTimeAugmentation(
        flip=arguments.flip,
        sizes=tuple(dict.fromkeys(arguments.sizes)),
        float16=arguments.float16,
        querybank=arguments.querybank,
    )
    options = {name: str(arguments[name]) for name in _OPTIONS}
    command = " ".join(f"--{name} {value}" for name, value in options.items())
    origin = {
        "data": options["data"],
        "split": split,
        "split_digest": digest,
        "protocol": protocol,
        **asdict(augmentation),
        "checkpoint": arguments.checkpoint,
        # Before the long work, because a training that still runs may replace the best checkpoint.
        "checkpoint_sha256": sha256_file(trained.checkpoint),
        "command": f"python -m pipelines.evaluate {command} {augmentation.options}".rstrip(),
    }
    with explain_damage(data):
        metrics = evaluate_split(
            trained.model,
            trained.tokenizer,
            trained.config.image,
            data,
            split,
            protocol,
            augmentation=augmentation,
        )
    path = metrics_path(
        arguments.run, data, split, protocol, digest, augmentation, arguments.checkpoint
    )
    date = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(path, {**metrics, **origin, "date": date})
    title = f"{arguments.run} on {data}, {split}, {protocol}"
    Console().print(metrics_table(metrics, title, digest))
    say_files([path])


main = partial(run_verb, build_parser, run)

if __name__ == "__main__":
    sys.exit(main())
