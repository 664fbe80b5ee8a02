"""The configuration as options of a verb: a preset, and any key as an override."""

from __future__ import annotations

import argparse  # noqa: TID251 jsonargparse cannot parse a part of a command line
import dataclasses
import sys
from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from tf_dpce.config import Config, from_dict, preset_names, preset_values


def add_configuration(parser: ArgumentParser, argv: Sequence[str] | None) -> None:
    """Adds `--preset` and every configuration key to a parser.

    Args:
        parser: of a verb.
        argv: the command line, whose preset gives the defaults; None takes the process's own.
    """
    names = preset_names()
    parser.add_argument(
        "--preset", choices=names, metavar="NAME", help=f"values to start from: {', '.join(names)}"
    )
    parser.add_class_arguments(Config, skip={"vectors"})
    # Its files are given one after the other, not as a list in brackets.
    parser.add_argument(
        "--vectors", nargs="+", metavar="FILE", help="files of initial word vectors, side by side"
    )
    parser.set_defaults(_flat(_preset_of(argv)))


def configuration(arguments: Namespace) -> Config:
    """Returns the configuration among parsed arguments.

    Raises:
        UserError: a value that no run can use.
    """
    keys = {field.name for field in dataclasses.fields(Config)}
    return from_dict({k: v for k, v in arguments.as_dict().items() if k in keys})


def _preset_of(argv: Sequence[str] | None) -> dict:
    """Returns the values of the preset in a command line: they are defaults of the options."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--preset")
    name = finder.parse_known_args(sys.argv[1:] if argv is None else argv)[0].preset
    return preset_values(name) if name in preset_names() else {}


def _flat(values: dict, prefix: str = "") -> dict:
    """Returns nested values as one dict with dotted keys."""
    flat = {}
    for key, value in values.items():
        # A mapping of a key's own, such as `lr_multipliers`, is no section.
        nested = isinstance(value, dict) and key != "lr_multipliers"
        flat.update(_flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value})
    return flat
