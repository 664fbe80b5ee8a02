"""Builds a search index over embeddings: `python -m pipelines.index`."""

from __future__ import annotations

import sys
from pathlib import Path

from pipelines._verb import options_verb, say_files
from tf_dpce.search.index import build_index


def run(
    embeddings: list[Path],
    out: str,
    factory: str | None = None,
    querybank: Path | None = None,
) -> None:
    """Builds a search index over embeddings.

    Args:
        embeddings: folders that embed wrote.
        out: folder of the index to write, or one in Milvus: http(s)://HOST:PORT[#NAME], or
            PATH.db[#NAME] for Milvus Lite.
        factory: FAISS index beside the exact one, such as IVF1024,SQ8 or HNSW32 (default: by
            the number of items).
        querybank: folder that embed wrote, of typical queries: corrects for hubs by querybank
            normalisation (CSLS).
    """
    index = build_index(embeddings, out, factory, querybank)
    counts = " and ".join(f"{count:,} {kind}" for kind, count in index.counts.items())
    kind = f"{factory} index" if factory else "index"
    print(f"{kind} of {counts}, {index.dimension} numbers each")
    for kind, queries in index.querybanks.items():
        print(f"{kind} normalised with a querybank of {queries:,} queries")
    say_files([out])


build_parser, main = options_verb("index", run)


if __name__ == "__main__":
    sys.exit(main())
