"""Asks one of the paper's questions by a few short runs: `python -m pipelines.study`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from pipelines._verb import progress, run_verb, say_files, verb_parser
from tf_dpce.errors import UserError

NAME_HELP = (
    "text_tower: convolutions, a GRU and a bag of words; objective: the losses, alone and one "
    "after the other; parts: frozen or trained backbone, word vectors, position shift; transfer: "
    "trained on one source, scored on another"
)


def build_parser() -> ArgumentParser:
    """Returns the verb's parser."""
    parser = verb_parser("study", "Trains the arms of a study for equal times and compares them.")
    parser.add_argument("name", type=str, help=NAME_HELP)
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared data")
    parser.add_argument("--out", type=Path, required=True, help="folder of the study")
    parser.add_argument(
        "--other", nargs="+", type=Path, default=[], help="further prepared data, for transfer"
    )
    parser.add_argument("--preset", type=str, help="values to start from (flickr8k_small)")
    parser.add_argument(
        "--minutes", type=float, default=5.0, help="of training an arm, validation not counted"
    )
    parser.add_argument("--weights", type=str, help="of the backbone: imagenet, none or a file")
    parser.add_argument("--vectors", type=Path, help="file of word vectors")
    parser.add_argument("--seed", type=int, default=0, help="of every arm")
    parser.add_argument("--resume", action="store_true", help="go on where the study was broken")
    return parser


def run(arguments: Namespace) -> None:
    """Runs the study, shows its table and names what it leaves behind."""
    if arguments.minutes <= 0:
        raise UserError(f"--minutes {arguments.minutes} leaves no time to train: give more than 0")

    from tf_dpce.ablations.arms import Question
    from tf_dpce.ablations.report import draw_curves, write_table
    from tf_dpce.ablations.study import STUDY_FILE, Study

    vectors = arguments.vectors and str(arguments.vectors)
    question = Question(
        arguments.name, arguments.preset, arguments.weights, vectors, arguments.seed
    )
    study = Study(
        question,
        arguments.data,
        tuple(arguments.other),
        arguments.out,
        arguments.minutes,
        _command(arguments),
    )
    results = study.run(
        arguments.resume,
        say=lambda line: print(line, flush=True),
        progress=lambda: progress("images through the backbone"),
    )
    table, curves = write_table(results, arguments.out), draw_curves(results, arguments.out)
    print(table.read_text())
    say_files([table, curves, arguments.out / STUDY_FILE])
    say_files(arguments.out / name for name in results["arms"])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit status."""
    return run_verb(build_parser, run, argv)


def _command(arguments: Namespace) -> str:
    """Returns the command that starts the study anew."""
    words = ["python", "-m", "pipelines.study", arguments.name]
    for option in ("data", "other", "out", "preset", "minutes", "weights", "vectors", "seed"):
        value = arguments[option]
        if value not in (None, []):
            values = value if isinstance(value, list) else [value]
            words += [f"--{option}", *map(str, values)]
    return shlex.join(words)


if __name__ == "__main__":
    sys.exit(main())
