"""What cutting embeddings costs and saves: `python -m benchmarks.cuts --run RUN --data DATA`.

Measures, on the validation split, the recall of fewer numbers of embeddings, the first ones and
those along the axes of `export --dim`, stored in float32, float16 and int8; their bytes; and the
time of a query among 100,000 images.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse.typing import PositiveInt

from benchmarks.timing import interleave
from pipelines._verb import options_verb

# How numbers are stored: FAISS's name for it, and the bytes of one.
_STORED = {"float32": ("Flat", 4), "float16": ("SQfp16", 2), "int8": ("SQ8", 1)}
_IMAGES, _QUERIES, _ROUNDS = 100_000, 20, 3


def run(
    run: Path, data: Path, lengths: list[PositiveInt] | None = None, no_times: bool = False
) -> None:
    """Prints a line for each length and precision, as a row of a Markdown table.

    Args:
        run: run folder.
        data: prepared data.
        lengths: how many numbers (default: all, and the prefixes of stage 1).
        no_times: leave out the time of a query.
    """
    from tf_dpce.evaluation.cut import cut
    from tf_dpce.evaluation.embed import SplitEncoder
    from tf_dpce.evaluation.tta import PLAIN
    from tf_dpce.export.calibrate import fit_axes
    from tf_dpce.training.run_folder import load_run

    trained = load_run(run)
    config = trained.config
    encoder = SplitEncoder(trained.model, trained.tokenizer, config.image, PLAIN)
    images, texts = encoder.embed(data, "val")
    axes = fit_axes(encoder, data)
    chosen = lengths or [config.model.output_dim, *config.stage1.loss.prefixes]
    cases = [(length, name) for length in chosen for name in _STORED]
    times = {} if no_times else _query_times(cases)
    print("| numbers | stored in | bytes an image | rsum | rsum along axes | ms a query |")
    print("|---|---|---|---|---|---|")
    for length, name in cases:
        factory, size = _STORED[name]
        sums = [
            _rsum(
                cut(images.vectors @ turn, length),
                cut(texts.vectors @ turn, length),
                images.instances,
                texts.instances,
                factory,
            )
            for turn in (np.eye(len(axes), dtype=np.float32), axes)
        ]
        took = f"{times[length, name]:.2f}" if times else ""
        cells = " | ".join(f"{rsum:.1f}" for rsum in sums)
        print(f"| {length:,} | {name} | {length * size:,} | {cells} | {took} |", flush=True)


def _rsum(
    images: np.ndarray, texts: np.ndarray, of_images: np.ndarray, of_texts: np.ndarray, factory: str
) -> float:
    """Returns the sum of recalls if what is found is stored so, and queries are exact."""
    from tf_dpce.evaluation.metrics import retrieval_metrics

    total = 0.0
    for found, sides in (
        ("text_to_image", (_restored(images, factory), texts)),
        ("image_to_text", (images, _restored(texts, factory))),
    ):
        recalls = retrieval_metrics(*sides, of_images, of_texts)[found]
        total += sum(recalls[name] for name in ("r1", "r5", "r10"))
    return total


def _restored(vectors: np.ndarray, factory: str) -> np.ndarray:
    return _index(vectors, factory).reconstruct_n(0, len(vectors))


def _index(vectors: np.ndarray, factory: str) -> Any:
    import faiss

    index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    return index


def _query_times(cases: list[tuple[int, str]]) -> dict[tuple[int, str], float]:
    """Returns the shortest time of a query of each case in milliseconds, the cases in turns."""
    import faiss

    faiss.omp_set_num_threads(1)
    draw, calls = np.random.default_rng(0), {}
    for length, name in cases:
        vectors = draw.standard_normal((_IMAGES, length), np.float32)
        index = _index(vectors, _STORED[name][0])
        calls[length, name] = partial(_ask, index, cycle(vectors[:_QUERIES]))
    seconds = interleave(calls, _ROUNDS * _QUERIES)
    return {case: 1000 * taken.min() for case, taken in seconds.items()}


def _ask(index: Any, queries: Iterator[np.ndarray]) -> None:
    index.search(next(queries)[None], 10)


build_parser, main = options_verb("benchmarks.cuts", run)


if __name__ == "__main__":
    sys.exit(main())
