"""The `tf-dpce` command: `tf-dpce VERB ...` is `python -m pipelines.VERB ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

VERBS = {
    "prepare": "check images and captions and write them as shards",
    "train": "train both towers in the two stages of a preset",
    "evaluate": "measure recall in both directions on one split",
    "ablate": "answer one of the paper's questions with a few short runs",
    "export": "publish a trained run as a SavedModel that takes raw bytes and strings",
    "verify": "check an exported version in a fresh process, as TF Serving would run it",
    "serve": "run a model server, or write the configuration for one",
    "embed": "turn images or texts into embeddings",
    "index": "build a search index over embeddings",
    "search": "find images or texts with a text or an image",
    "demo": "run all steps from prepare to search on drawn scenes",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Hands the arguments after the verb's name to that verb and returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        print(_usage(), file=sys.stderr)
        return 2
    verb, *rest = arguments
    if verb in ("-h", "--help"):
        print(_usage())
        return 0
    if verb not in VERBS:
        print(f"{_usage()}\n\nerror: there is no verb '{verb}'", file=sys.stderr)
        return 2
    return import_module(f"pipelines.{verb}").main(rest)


def _usage() -> str:
    lines = [f"  {verb:<10}{line}" for verb, line in VERBS.items()]
    return "\n".join(["usage: tf-dpce VERB [--help] ...", "", *lines])


if __name__ == "__main__":
    sys.exit(main())
