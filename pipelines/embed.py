"""Turns images or texts into embeddings: `python -m pipelines.embed`."""

from __future__ import annotations

import sys
from functools import partial
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
        "--shard",
        type=part,
        metavar="I/N",
        help="embed the I-th of N equal parts (1/N to N/N), so that N machines share the work; "
        "each part has a folder --out of its own, and index takes them all",
    )
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
    if arguments.shard is not None:
        inputs = inputs.part(*map(int, arguments.shard.split("/")))

    from tf_dpce.export.encoder import load
    from tf_dpce.search.embed import embed

    out, kind = arguments.out, inputs.kind
    before, done = embed(load(arguments.model), inputs, out, digest, arguments.shard_size)
    if before == done.total:
        print(f"nothing to do: {out} already holds these {kind}")
    elif before:
        print(f"continued after {before:,} of {done.total:,} {kind}")
    print(f"{done.embedded:,} {kind} embedded, {done.rejected:,} rejected")
    say_files([out / MANIFEST, rejected_file(out, kind)])


def part(text: str) -> str:
    """Returns `I/N` if there is such a part."""
    number, count = map(int, text.split("/"))
    if not 1 <= number <= count:
        raise ValueError(f"{number} is not in 1..{count}")
    return text


main = partial(run_verb, build_parser, run)

if __name__ == "__main__":
    sys.exit(main())
