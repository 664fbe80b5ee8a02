"""Search: items become embeddings, embeddings an index, and a query its ranked hits.

The public names, such as `open_index`, are imported when they are first used.

Data flows down this list; a module imports only from those above it.

embedding      images and texts to shards of embeddings
interface      what a search asks of an index
milvus         an index in Milvus
index          an index in a folder, and the opening and building of both
queries        texts, images, items and filters, as they are asked
probabilities  how probable it is that a hit is what was asked
answer         hits
searcher       a query to its answer
find           the index that follows a folder
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["Answer", "Filter", "Hit", "Index", "Term", "build_index", "open_index", "parse_query"]

_HOMES = {
    **dict.fromkeys(("Answer", "Hit"), "answer"),
    **dict.fromkeys(("build_index", "open_index"), "index.build"),
    **dict.fromkeys(("Term", "parse_query"), "queries.query"),
    "Filter": "queries.filters",
    "Index": "interface",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
