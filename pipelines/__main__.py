"""The `tf-dpce` command: `tf-dpce VERB ...` is `python -m pipelines.VERB ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

VERBS = (
    *("prepare", "train", "evaluate", "ablate", "export", "verify", "serve"),
    *("find", "embed", "index", "search", "web", "demo"),
)


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
    modules = {verb: import_module(f"pipelines.{verb}") for verb in VERBS}
    lines = [f"  {verb:<10}{module.__doc__.split(':')[0]}" for verb, module in modules.items()]
    return "\n".join(["usage: tf-dpce VERB [--help] ...", "", *lines])


if __name__ == "__main__":
    sys.exit(main())
