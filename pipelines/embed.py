"""Turns images or texts into embeddings: `python -m pipelines.embed`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt

from pipelines._verb import run_verb, say_files, verb_parser
from tf_dpce.search.embedding_store import SHARD_SIZE


def build_parser() -> ArgumentParser:
    """Returns the verb's parser."""
    parser = verb_parser("embed", "Turns images or texts into embeddings.")
    parser.add_argument("--model", type=Path, required=True, help="exported model, or run folder")
    inputs = parser.add_mutually_exclusive_group(required=True)
    inputs.add_argument(
        "--images",
        nargs="+",
        type=str,
        metavar="GLOB_OR_SHARDS",
        help="images, such as 'photos/**/*.jpg'; or a prepared folder, or its *.tfrecord",
    )
    inputs.add_argument(
        "--texts",
        nargs="+",
        type=str,
        metavar="FILE",
        help="files with one text in each line, or .jsonl with text and id; or shards",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of embeddings to write")
    parser.add_argument(
        "--shard-size",
        type=PositiveInt,
        default=SHARD_SIZE,
        help="number of embeddings in a file",
    )
    return parser


def run(arguments: Namespace) -> None:
    """Embeds, and reports what was done before, now, and not at all."""
    from tf_dpce.search.embedding_store import MANIFEST, rejected_file
    from tf_dpce.search.fingerprint import model_digest
    from tf_dpce.search.inputs import find_images, find_texts

    digest = model_digest(arguments.model)
    images = arguments.images is not None
    inputs = find_images(arguments.images) if images else find_texts(arguments.texts)

    from tf_dpce.export.encoder import load
    from tf_dpce.search.embed import embed

    out = arguments.out
    outcome = embed(load(arguments.model), inputs, out, digest, arguments.shard_size)
    if outcome.before == outcome.total:
        print(f"nothing to do: {out} already holds these {inputs.kind}")
    elif outcome.before:
        print(f"continued after {outcome.before:,} of {outcome.total:,} {inputs.kind}")
    print(f"{outcome.embedded:,} {inputs.kind} embedded, {outcome.rejected:,} rejected")
    say_files([out / MANIFEST, rejected_file(out, inputs.kind)])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit status."""
    return run_verb(build_parser, run, argv)


if __name__ == "__main__":
    sys.exit(main())
