"""Searches an index without pause until a file exists.

    python -m tests.unit.search.index.reader INDEX FILE

Prints the number of answers and of the generations that it saw. Fails if an answer mixes two.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.unit.search.plain import vector
from tf_dpce.search.index.build import open_index

ITEMS = 12
QUERY = "a query"


def main(folder: str, stop: str) -> None:
    index, seen, answers = open_index(folder), set(), 0
    print("ready", flush=True)
    while not Path(stop).exists():
        (found,) = index.search("images", vector(QUERY)[None], ITEMS, of="images")
        # The items that are searched for have the embedding of the query; others come and go.
        generations = {item.record["generation"] for item in found}
        assert len(found) == ITEMS and len(generations) == 1, generations
        seen |= generations
        answers += 1
        if answers % 50 == 0:
            index = open_index(folder)
    print(answers, len(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
