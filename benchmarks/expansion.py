"""What words that were never trained are worth: `python -m benchmarks.expansion --data DATA ...`.

Trains a run without a tenth of the vocabulary, gives it these words by `export --expand`'s map, and
compares it with a run of the full vocabulary on the validation captions that hold such words.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines import train
from pipelines._verb import options_verb

if TYPE_CHECKING:
    from tf_dpce.training.run_folder import Run

_SHARE, _BATCH = 0.1, 64


def run(data: Path, vectors: list[Path], out: Path, options: str = "", seed: int = 0) -> None:
    """Prints text-to-image recalls as rows of a Markdown table.

    Args:
        data: prepared data, whose vocabulary is full.
        vectors: files of word vectors, from which both runs start.
        out: folder for the data without the words and for both runs; what is there is not done
            again.
        options: further options of train, such as "--preset flickr8k --weights FILE".
        seed: draws the words, and is that of both runs.
    """
    from tf_dpce.export.expansion import expand
    from tf_dpce.preprocessing.vocabulary import read_vocabulary
    from tf_dpce.training.run_folder import load_run

    words = read_vocabulary(data / "vocabulary.txt")
    draw = np.random.default_rng(seed)
    drawn = draw.choice(len(words), round(_SHARE * len(words)), replace=False)
    left_out = [words[row] for row in sorted(drawn.tolist())]
    cut = _without(data, set(left_out), out / "data")
    for folder, name in ((cut, "cut"), (data, "full")):
        if not (out / name).exists():
            files = [str(path) for path in vectors]
            begin = ["--stage", "1", "--data", str(folder), "--run", str(out / name)]
            command = [*begin, "--seed", str(seed), "--vectors", *files, *shlex.split(options)]
            if status := train.main(command):
                sys.exit(status)
    runs = {"without the words": load_run(out / "cut"), "full vocabulary": load_run(out / "full")}
    runs["inferred from their vectors"] = expand(runs["without the words"], vectors, left_out)
    print("| run | captions | R@1 | R@5 | R@10 | sum |\n|---|---|---|---|---|---|")
    for name, trained in runs.items():
        ranks, holding = _ranks(trained, data, left_out)
        for group, chosen in (("all", ranks), ("with such words", ranks[holding])):
            recalls = [100 * float(np.mean(chosen <= top)) for top in (1, 5, 10)]
            cells = " | ".join(f"{value:.1f}" for value in (*recalls, sum(recalls)))
            print(f"| {name} | {group}, {len(chosen):,} | {cells} |", flush=True)


def _without(data: Path, words: set[str], out: Path) -> Path:
    """Returns prepared data that shares its shards and lacks words of the vocabulary."""
    from tf_dpce.data.manifest import Manifest
    from tf_dpce.files import sha256_file
    from tf_dpce.preprocessing.vocabulary import read_vocabulary, write_vocabulary

    if (out / "manifest.json").is_file():
        return out
    manifest, vocabulary = Manifest.load(data), out / "vocabulary.txt"
    out.mkdir(parents=True, exist_ok=True)
    for path in [*data.glob("*.tfrecord"), *data.glob("features")]:
        (out / path.name).symlink_to(path.resolve())
    left = [word for word in read_vocabulary(data / vocabulary.name) if word not in words]
    write_vocabulary(vocabulary, left)
    digest = sha256_file(vocabulary)
    replace(manifest, vocabulary_size=len(left), vocabulary_sha256=digest).save(out)
    return out


def _ranks(trained: Run, data: Path, words: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rank of each validation caption's image, and which captions hold the words."""
    from tf_dpce.data.input_pipeline import evaluation_captions
    from tf_dpce.evaluation.embed import SplitEncoder
    from tf_dpce.evaluation.ranks import best_ranks
    from tf_dpce.evaluation.tta import PLAIN
    from tf_dpce.preprocessing.tokenizer import CaptionTokenizer

    image, tokenizer = trained.config.image, trained.tokenizer
    images, texts = SplitEncoder(trained.model, tokenizer, image, PLAIN).embed(data, "val")
    _, ranks = best_ranks(*images.compared_with(texts))
    finder = CaptionTokenizer(words, tokenizer.max_length, tokenizer.lowercase)
    batches = evaluation_captions(data, "val", finder, _BATCH)
    return ranks, np.concatenate([(batch["text"] > 0).numpy().any(1) for batch in batches])


build_parser, main = options_verb("benchmarks.expansion", run)


if __name__ == "__main__":
    sys.exit(main())
