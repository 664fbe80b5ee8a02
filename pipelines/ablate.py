"""Answers one of the paper's questions by a few short runs: `python -m pipelines.ablate`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from jsonargparse.typing import PositiveInt

from pipelines._verb import options_verb, say_files


def run(
    question: str,
    /,
    data: Path,
    out: Path,
    other: list[Path] | None = None,
    epochs: PositiveInt | None = None,
    weights: str | None = None,
    vectors: Path | None = None,
    seed: int = 0,
) -> None:
    """Trains the variants of a question and compares them.

    Args:
        question: text_tower: convolutions, a GRU and a bag of words; objective: the losses, alone
            and one after the other; parts: frozen or trained backbone, word vectors, position
            shift; transfer: trained on one dataset, evaluated on another.
        data: folder of prepared data.
        out: folder of the results; the same command continues.
        other: transfer: folders of other prepared data.
        epochs: epochs of a variant in all stages (the preset's).
        weights: backbone: imagenet, none or a file.
        vectors: file of word vectors.
        seed: seed of every variant.
    """
    from tf_dpce.ablations.variants import Question
    from tf_dpce.files import check_writable

    asked = Question(question, weights, vectors and str(vectors), epochs, seed)
    asked.check_sources([data, *(other or [])])
    check_writable(out)

    from tf_dpce.ablations.report import draw_curves, write_table
    from tf_dpce.ablations.run import RESULTS_FILE, run_ablation

    options = {"data": data, "out": out, "weights": weights, "vectors": vectors}
    options |= {"epochs": epochs, "seed": seed}
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    others = ["--other", *map(str, other)] if other else []
    command = shlex.join(["python", "-m", "pipelines.ablate", question, *given, *others])
    results = run_ablation(asked, data, other or [], out, command)
    table = write_table(results, out)
    curves = draw_curves(results, out)
    print(table.read_text())
    say_files([table, curves, out / RESULTS_FILE, *(out / name for name in results["variants"])])


build_parser, main = options_verb("ablate", run)


if __name__ == "__main__":
    sys.exit(main())
