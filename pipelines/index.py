"""Builds a search index over embeddings: `python -m pipelines.index`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from pipelines._verb import run_verb, say_files, verb_parser
from tf_dpce.search.index import DEFAULT_FACTORY, build_index


def build_parser() -> ArgumentParser:
    """Returns the verb's parser."""
    parser = verb_parser("index", "Builds a search index over embeddings.")
    parser.add_argument(
        "--embeddings", nargs="+", type=Path, required=True, help="folders that embed wrote"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the index to write")
    parser.add_argument(
        "--factory",
        type=str,
        default=DEFAULT_FACTORY,
        help="FAISS index: Flat is exact, IVF1024,Flat and HNSW32 are faster",
    )
    parser.add_argument(
        "--querybank",
        type=Path,
        metavar="DIR",
        help="folder that embed wrote, of typical queries: corrects for hubs by querybank "
        "normalisation (CSLS)",
    )
    return parser


def run(arguments: Namespace) -> None:
    """Builds or replaces an index, and reports what it holds."""
    manifest = build_index(
        arguments.embeddings, arguments.out, arguments.factory, arguments.querybank
    )
    counts = " and ".join(f"{count:,} {kind}" for kind, count in manifest.counts.items())
    print(f"{manifest.factory} index of {counts}, {manifest.dimension} numbers each")
    for kind, queries in manifest.querybanks.items():
        print(f"{kind} normalised with a querybank of {queries:,} queries")
    say_files([arguments.out])


main = partial(run_verb, build_parser, run)

if __name__ == "__main__":
    sys.exit(main())
