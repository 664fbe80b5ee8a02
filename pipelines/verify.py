"""Checks an exported version as TF Serving will run it: `python -m pipelines.verify PATH`."""

from __future__ import annotations

import sys
from pathlib import Path

from pipelines._verb import options_verb


def run(path: Path, /, serving_version: str | None = None) -> None:
    """Checks an exported version as TF Serving will run it.

    Args:
        path: saved_models/NAME/INTEGER, or NAME for the newest.
        serving_version: TF Serving that must have every operation, such as 2.19 (default: the
            newest known).
    """
    from tf_dpce.errors import UserError
    from tf_dpce.export.operations import NEWEST
    from tf_dpce.export.operations import serving_version as known_version
    from tf_dpce.export.versions import find_version

    version = find_version(path)
    serving = known_version(serving_version or NEWEST)

    from tf_dpce.export.verify import verify_version
    from tf_dpce.logging import progress

    with progress("checks", transient=True):
        checks = verify_version(version, serving)
    for check in checks:
        print(f"{'ok    ' if check.passed else 'FAILED'}  {check.name:17}{check.finding}")
    for check in checks:
        if not check.passed:
            message = f"{version} is not fit to serve: {check.name}: {check.finding}"
            raise UserError("verify.failed", f"{message}; export it again", version)
    print(f"{version} answers as the model it was exported from")


build_parser, main = options_verb("verify", run)

if __name__ == "__main__":
    sys.exit(main())
