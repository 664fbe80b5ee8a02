"""A process that kills itself, by SIGKILL, just before its n-th file takes its final name.

    python -m tests.unit.search.killed N embed GLOB OUT SHARD_SIZE
    python -m tests.unit.search.killed N index EMBEDDINGS OUT

N = 0 lets it live.
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import count
from pathlib import Path

from tests.unit.search.plain import MODEL, PlainEncoder
from tf_dpce.search.embedding.embed import embed
from tf_dpce.search.embedding.inputs import find_images
from tf_dpce.search.index.build import build_index


def die_at_rename(number: int) -> None:
    renames = count(1)

    def deadly(rename):
        def renamed(*arguments):
            if next(renames) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(*arguments)

        return renamed

    os.replace, os.rename = deadly(os.replace), deadly(os.rename)


def main(number: str, verb: str, source: str, out: str, *rest: str) -> None:
    die_at_rename(int(number))
    if verb == "embed":
        inputs = find_images([source])
        embed(PlainEncoder(), inputs, Path(out), MODEL, shard_size=int(rest[0]))
    else:
        build_index([Path(source)], Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
