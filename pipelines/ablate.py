"""Answers one of the paper's questions by a few short runs: `python -m pipelines.ablate`."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt

from pipelines._verb import run_verb, say_files, verb_parser

_QUESTION = (
    "text_tower: convolutions, a GRU and a bag of words; objective: the losses, alone and one "
    "after the other; parts: frozen or trained backbone, word vectors, position shift; transfer: "
    "trained on one dataset, evaluated on another"
)


def build_parser() -> ArgumentParser:
    """Returns the verb's parser."""
    parser = verb_parser("ablate", "Trains the variants of a question and compares them.")
    parser.add_argument("question", type=str, help=_QUESTION)
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared data")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the results; the same command continues"
    )
    parser.add_argument(
        "--other", nargs="+", type=Path, default=[], help="transfer: folders of other prepared data"
    )
    parser.add_argument("--preset", type=str, help="values to start from (flickr8k_small)")
    parser.add_argument(
        "--epochs", type=PositiveInt, help="epochs of a variant in all stages (the preset's)"
    )
    parser.add_argument("--weights", type=str, help="backbone: imagenet, none or a file")
    parser.add_argument("--vectors", type=Path, help="file of word vectors")
    parser.add_argument("--seed", type=int, default=0, help="seed of every variant")
    return parser


def run(arguments: Namespace) -> None:
    """Trains and scores the variants, shows their table and names what it leaves behind."""
    from tf_dpce.ablations.report import draw_curves, write_table
    from tf_dpce.ablations.run import RESULTS_FILE, run_ablation
    from tf_dpce.ablations.variants import Question

    question = Question(
        arguments.question,
        preset=arguments.preset,
        weights=arguments.weights,
        vectors=arguments.vectors and str(arguments.vectors),
        epochs=arguments.epochs,
        seed=arguments.seed,
    )
    command = ["python", "-m", "pipelines.ablate", arguments.question]
    for option in ("data", "other", "out", "preset", "epochs", "weights", "vectors", "seed"):
        value = arguments[option]
        if value not in (None, []):
            command += [f"--{option}", *map(str, value if option == "other" else [value])]
    results = run_ablation(
        question, arguments.data, arguments.other, arguments.out, shlex.join(command)
    )
    table = write_table(results, arguments.out)
    curves = draw_curves(results, arguments.out)
    print(table.read_text())
    say_files([table, curves, arguments.out / RESULTS_FILE])
    say_files(arguments.out / name for name in results["variants"])


main = partial(run_verb, build_parser, run)

if __name__ == "__main__":
    sys.exit(main())
