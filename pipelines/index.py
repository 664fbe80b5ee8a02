"""Builds a search index over embeddings: `python -m pipelines.index`."""

from __future__ import annotations

import sys
from pathlib import Path

from pipelines._verb import options_verb, say_files
from tf_dpce.search.index import DEFAULT_FACTORY, build_index


def run(
    embeddings: list[Path],
    out: Path,
    factory: str = DEFAULT_FACTORY,
    querybank: Path | None = None,
) -> None:
    """Builds a search index over embeddings.

    Args:
        embeddings: folders that embed wrote.
        out: folder of the index to write.
        factory: FAISS index: Flat is exact, IVF1024,Flat and HNSW32 are faster.
        querybank: folder that embed wrote, of typical queries: corrects for hubs by querybank
            normalisation (CSLS).
    """
    manifest = build_index(embeddings, out, factory, querybank)
    counts = " and ".join(f"{count:,} {kind}" for kind, count in manifest.counts.items())
    print(f"{manifest.factory} index of {counts}, {manifest.dimension} numbers each")
    for kind, queries in manifest.querybanks.items():
        print(f"{kind} normalised with a querybank of {queries:,} queries")
    say_files([out])


build_parser, main = options_verb("index", run)


if __name__ == "__main__":
    sys.exit(main())
