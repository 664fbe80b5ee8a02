"""Builds a search index over vectors: `python -m pipelines.index`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from pipelines._verb import progress, run_verb, say_files, verb_parser
from tf_dpce.errors import UserError
from tf_dpce.search.catalogue import DEFAULT_FACTORY


def build_parser() -> ArgumentParser:
    """Returns the verb's parser."""
    parser = verb_parser("index", "Builds a search index over vectors.")
    parser.add_argument(
        "--embeddings", nargs="+", type=Path, required=True, help="folders that embed wrote"
    )
    parser.add_argument("--out", type=str, required=True, help="folder of the index to write")
    parser.add_argument(
        "--factory",
        type=str,
        default=DEFAULT_FACTORY,
        help="FAISS's description: Flat is exact (default), IVF1024,Flat and HNSW32 are fast",
    )
    parser.add_argument(
        "--querybank",
        type=Path,
        help="folder that embed wrote, of queries like those to come: corrects for hubs by "
        "querybank normalisation (CSLS)",
    )
    return parser


def run(arguments: Namespace) -> None:
    """Builds or replaces an index, and says what it holds."""
    if "://" in arguments.out:
        raise UserError(f"--out {arguments.out} is an address: only folders can be written so far")

    from tf_dpce.search.index import build_index

    out = Path(arguments.out)
    with progress("vectors") as report:
        catalogue = build_index(
            arguments.embeddings, out, arguments.factory, report, arguments.querybank
        )
    held = " and ".join(f"{count:,} {kind}" for kind, count in catalogue.counts.items())
    print(f"{catalogue.factory} index of {held}, {catalogue.dimension} numbers each")
    for kind, queries in catalogue.querybanks.items():
        print(f"{kind} normalised with a querybank of {queries:,} queries")
    say_files([out])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the verb and returns its exit status."""
    return run_verb(build_parser, run, argv)


if __name__ == "__main__":
    sys.exit(main())
