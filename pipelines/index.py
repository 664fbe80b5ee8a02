"""Builds a search index over embeddings: `python -m pipelines.index`."""

from __future__ import annotations

import sys

from pipelines._verb import options_verb, say_files
from tf_dpce.search.index import build_index
from tf_dpce.storage import local_folder


def run(
    embeddings: list[str],
    out: str,
    factory: str | None = None,
    querybank: str | None = None,
) -> None:
    """Builds a search index over embeddings.

    Args:
        embeddings: folders that embed wrote; of an object store they are copied to this machine.
        out: folder of the index to write, or one in Milvus: http(s)://HOST:PORT[#NAME], or
            PATH.db[#NAME] for Milvus Lite.
        factory: FAISS index beside the exact one, such as IVF1024,SQ8 or HNSW32 (default: by
            the number of items).
        querybank: folder that embed wrote, of typical queries: corrects for hubs by querybank
            normalisation (CSLS).
    """
    folders = [local_folder(place) for place in embeddings]
    queries = None if querybank is None else local_folder(querybank)
    index = build_index(folders, out, factory, queries)
    counts = " and ".join(f"{count:,} {kind}" for kind, count in index.counts.items())
    kind = f"{factory} index" if factory else "index"
    print(f"{kind} of {counts}, {index.dimension} numbers each")
    for kind, queries in index.querybanks.items():
        print(f"{kind} normalised with a querybank of {queries:,} queries")
    say_files([out])


build_parser, main = options_verb("index", run)


if __name__ == "__main__":
    sys.exit(main())
