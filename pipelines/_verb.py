"""What every verb shares: how it parses, logs, stops, names its files and fails.

A verb is one module, `pipelines/VERB.py`, whose options are the parameters of its function `run`:

    def run(model: Path, /, out: Path, flip: bool = False, sizes: list[int] | None = None) -> None:
        '''Does this and that.

        Args:
            model: an argument without a name, because the slash makes it one.
            out: an option --out that must be given.
            flip: a flag --flip.
            sizes: an option --sizes with one or more values.
        '''
        import tensorflow  # what is heavy is imported here, if at all
        ...

    build_parser, main = options_verb("VERB", run)

    if __name__ == "__main__":
        sys.exit(main())

Heavy imports stand inside `run`, so that `--help` and a mistyped option answer at once and
TensorFlow starts with its log level set. Results go to stdout; the log, bars and errors to stderr.
Long work reports through `tf_dpce.logging`.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import BoundArguments, Parameter, signature
from pathlib import Path
from threading import Event
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from docstring_parser import parse
from jsonargparse import SUPPRESS, ArgumentParser, DefaultHelpFormatter, Namespace
from jsonargparse.typing import restricted_number_type

from pipelines._configuration import add_configuration, configuration
from tf_dpce.config import Config
from tf_dpce.display import PersonDisplay
from tf_dpce.errors import Stopped, UserError, explain_system_error
from tf_dpce.logging import LogFormat, configure, logged_display, logger, run_context
from tf_dpce.machine import memory_bytes
from tf_dpce.native_noise import LEVEL, without_noise

# Otherwise Python looks through all graphs of TensorFlow for garbage before it ends, for seconds: a
# run that was sent SIGTERM could be killed for it after all.
atexit.register(gc.freeze)

# Folders of modules that are called by their whole names.
_MODULES = ("benchmarks", "examples")

SUCCESS = 0
FAILURE = 1
STOPPED = 75  # EX_TEMPFAIL of sysexits.h: the same command can end well later
INTERRUPTED = 130  # what a shell reports for a process that SIGINT ended

Port = restricted_number_type("Port", int, [(">=", 1), ("<=", 65535)])

# By the environment, because TensorFlow reads it once, when it starts.
TENSORFLOW = {
    # Warnings and errors, of which `without_noise` hides what is known to mean nothing.
    LEVEL: "1",
    # GPU memory as needed, not all at once, so that two processes can share a card.
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    # What one step gave back serves the next. Otherwise every large tensor is memory that the
    # system has to clear first, which takes as long as a third of a step.
    "TF_CPU_ALLOCATOR_USE_BFC": "true",
    # Of an allocator that would else stop at 64 GiB.
    "TF_CPU_BFC_MEM_LIMIT_IN_MB": str(memory_bytes() >> 20),
}


class _HelpFormatter(DefaultHelpFormatter):
    """Says what is required and what the defaults are; types say less than the names of options."""

    def _get_help_string(self, action: Any) -> str:
        text = action.help or ""
        if action.required:
            return f"{text} (required)"
        shown = action.nargs != 0 and action.default not in (None, "", [], SUPPRESS)
        return f"{text} (default: %(default)s)" if shown else text


def verb_parser(verb: str, description: str) -> ArgumentParser:
    """Returns the parser of a verb, with the options that all verbs have.

    Abbreviated options are refused: otherwise `--stage1.epoch` would pass for `--stage1.epochs`.
    """
    parser = ArgumentParser(
        prog=f"python -m {verb if verb.startswith(_MODULES) else f'pipelines.{verb}'}",
        description=description,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--log-format", type=LogFormat, default="text", help="format of the log on stderr"
    )
    return parser


def options_verb(
    verb: str, run: Callable[..., None], exclusive: Mapping[tuple[str, ...], bool] | None = None
) -> tuple[Callable[..., ArgumentParser], Callable[..., int]]:
    """Makes a verb of a function.

    Args:
        verb: its name, or the module of a benchmark or an example.
        run: does the work. Its parameters are the options, described by its docstring; one of the
            type `Config` stands for a preset and an option for each key. A name that Python has
            for something else ends in an underscore, which the option has not.
        exclusive: groups of options of which one alone may be given, and whether one must.

    Returns:
        The functions `build_parser` and `main` of the verb's module. Both take the command line.
    """
    hints, parameters = get_type_hints(run), signature(run).parameters
    configured = next((name for name in parameters if hints[name] is Config), None)

    def build_parser(argv: Sequence[str] | None = None) -> ArgumentParser:
        text = parse(run.__doc__)
        parser = verb_parser(verb, text.description)
        meanings = {item.arg_name: item.description for item in text.params}
        groups = {}
        for names, required in (exclusive or {}).items():
            groups |= dict.fromkeys(names, parser.add_mutually_exclusive_group(required=required))
        for name, parameter in parameters.items():
            if name == configured:
                add_configuration(parser, argv)
            else:
                flag, settings = _option(parameter, hints[name])
                meaning = " ".join(meanings[name].split()).removesuffix(".")
                groups.get(name, parser).add_argument(flag, help=meaning, **settings)
        return parser

    def call(arguments: Namespace) -> None:
        if configured:
            arguments[configured] = configuration(arguments)
        options = BoundArguments(signature(run), {name: arguments[name] for name in parameters})
        run(*options.args, **options.kwargs)

    def main(argv: Sequence[str] | None = None) -> int:
        return run_verb(partial(build_parser, argv), call, argv)

    return build_parser, main


def run_verb(
    build_parser: Callable[[], ArgumentParser],
    run: Callable[[Namespace], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parses `argv`, runs a verb and turns what the user can mend into one line on stderr.

    Args:
        build_parser: returns the verb's parser.
        run: does the work, given the parsed arguments.
        argv: arguments without the program's name; None takes the process's own.

    Returns:
        The exit status: 0, 1 after a mistake or a fault of the machine, 75 where the work
        stopped as SIGTERM asked, 130 after Ctrl-C.

    Raises:
        SystemExit: status 2 for bad usage, 0 for `--help`, as argparse has it.
        Exception: anything else that `run` raises is a bug, and keeps its traceback.
    """
    for name, value in TENSORFLOW.items():
        os.environ.setdefault(name, value)
    arguments = build_parser().parse_args(argv)
    configure(arguments.log_format)
    try:
        with without_noise(), PersonDisplay() as display:
            is_for_machines = arguments.log_format == "json"
            with run_context(display=logged_display if is_for_machines else display):
                run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except Stopped as stopped:
        return _fail(str(stopped), STOPPED)
    except BrokenPipeError:
        # `tf-dpce search ... | head` is no failure; the interpreter must not flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SUCCESS
    except Exception as error:
        known = error if isinstance(error, UserError) else explain_system_error(error)
        if known is None:
            raise
        fields = {"code": known.code, "path": known.path and str(known.path), "line": known.line}
        line = " ".join(str(known).split())
        if arguments.log_format == "text":
            line = f"error: {line} [{known.code}]"
        logger.error(line, extra={"fields": fields})
        return FAILURE
    return SUCCESS


@contextmanager
def terminations() -> Iterator[Callable[[], bool]]:
    """Makes SIGTERM request a stop within the block; yields whether one has come.

    A second SIGTERM ends the process at once.
    """
    asked = Event()

    def ask(number: int, frame: object) -> None:
        asked.set()
        signal.signal(signal.SIGTERM, before)

    before = signal.signal(signal.SIGTERM, ask)
    try:
        with run_context(stop_requested=asked.is_set):
            yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


def say_files(paths: Iterable[Path | str]) -> None:
    """Names on stdout, one a line, the files and folders that a verb leaves behind."""
    for path in paths:
        print(path)


def _option(parameter: Parameter, kind: Any) -> tuple[str, dict[str, Any]]:
    """Returns the name of a parameter's option, and the settings that `add_argument` takes."""
    settings: dict[str, Any] = {}
    flag = parameter.name
    if parameter.kind is not Parameter.POSITIONAL_ONLY:
        flag = f"--{flag.strip('_').replace('_', '-')}"
        settings = {"dest": parameter.name, "required": parameter.default is Parameter.empty}
    if parameter.default is not Parameter.empty:
        settings["default"] = parameter.default
    if NoneType in get_args(kind):
        kind = get_args(kind)[0]
    if kind is bool:
        return flag, {**settings, "action": "store_true"}
    if get_origin(kind) is list:
        return flag, {**settings, "nargs": "+", "type": get_args(kind)[0]}
    return flag, {**settings, "type": kind}


def _fail(line: str, status: int) -> int:
    logger.warning(line)
    return status
