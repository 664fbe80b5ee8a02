"""How a verb ends: with its status, and with one line where the user can mend something."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser, Namespace

from pipelines._verb import run_verb, verb_parser
from tests.errors import printed_code
from tf_dpce.errors import Stopped, UserError


def build_parser() -> ArgumentParser:
    parser = verb_parser("count", "Counts to a number.")
    parser.add_argument("--number", type=int, default=1)
    return parser


def raising(error: BaseException):
    def run(arguments: Namespace) -> None:
        raise error

    return run


def started(root: Path, body: str) -> subprocess.Popen:
    """A process of its own whose verb runs `body`."""
    code = "\n".join(
        [
            "import sys, time",
            "from pipelines._verb import run_verb, verb_parser",
            "def run(arguments):",
            *(f"    {line}" for line in body.splitlines()),
            "sys.exit(run_verb(lambda: verb_parser('count', ''), run, []))",
        ]
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code], cwd=root, **pipes)


def test_success_hands_the_parsed_arguments_over():
    seen = []
    for argv in ([], ["--number", "7"]):
        assert run_verb(build_parser, lambda arguments: seen.append(arguments.number), argv) == 0
    assert seen == [1, 7]


def test_bad_usage_is_status_2_and_runs_nothing(capsys):
    for argv in (["--numbers", "1"], ["--num", "1"], ["--number", "many"], ["more"]):
        with pytest.raises(SystemExit) as exit:
            run_verb(build_parser, raising(AssertionError("ran")), argv)
        assert exit.value.code == 2
        assert "error:" in capsys.readouterr().err


MENDABLE = (
    (UserError("table.image", "captions.csv,\n  no image"), "table.image", "csv, no image"),
    (OSError(errno.ENOSPC, "No space left", "a.tfrecord"), "system.file", "a.tfrecord"),
    (OSError(errno.ENOSPC, "No space left"), "system.file", "No space left"),
    (PermissionError(errno.EACCES, "Permission denied", "/out"), "system.file", "/out"),
    (OSError(errno.EROFS, "Read-only file system", "/out"), "system.file", "/out"),
)


def test_what_the_user_can_mend_is_one_line(capsys):
    for error, code, words in MENDABLE:
        assert run_verb(build_parser, raising(error), []) == 1
        output = capsys.readouterr()
        assert printed_code(output.err) == code and words in output.err
        assert output.err.startswith("error: ") and output.err.count("\n") == 1
        assert output.out == ""


def test_tensorflow_names_the_file_it_cannot_write(tmp_path: Path, capsys):
    import tensorflow as tf

    blocker = tmp_path / "file"
    blocker.write_text("a file where a folder is wanted")
    path = str(blocker / "checkpoint")
    assert run_verb(build_parser, lambda _: tf.io.write_file(path, "bytes"), []) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {blocker}") and "{{" not in lines[0]


def test_a_bug_keeps_its_traceback():
    import tensorflow as tf

    for error in (ValueError("shape"), OSError("not an HDF5 file")):
        with pytest.raises(type(error)):
            run_verb(build_parser, raising(error), [])
    with pytest.raises(tf.errors.InvalidArgumentError):
        run_verb(build_parser, lambda _: tf.reshape(tf.zeros(3), [2]), [])


def test_ctrl_c_is_status_130_without_a_traceback(project_root: Path):
    # What starts the tests in the background may have told them to ignore it.
    interruptible = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    process = started(project_root, f"{interruptible}print('ready', flush=True)\ntime.sleep(60)")
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, b"interrupted\n")


def test_work_that_stopped_as_asked_has_a_status_of_its_own(capsys):
    # EX_TEMPFAIL: a scheduler may start the same command again.
    assert run_verb(build_parser, raising(Stopped("go on with --resume")), []) == 75
    assert capsys.readouterr().err == "go on with --resume\n"


def test_sigterm_asks_once_and_then_ends_the_process(project_root: Path):
    body = (
        "from pipelines._verb import terminations\n"
        "with terminations() as stop:\n"
        "    print('ready', stop(), flush=True)\n"
        "    while not stop(): time.sleep(0.01)\n"
        "    print('asked', flush=True)\n"
        "    time.sleep(60)"
    )
    process = started(project_root, body)
    for line in (b"ready False\n", b"asked\n"):
        assert process.stdout.readline() == line
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM


def test_a_reader_that_leaves_early_is_no_failure(project_root: Path):
    process = started(project_root, "for row in range(100_000): print(row)")
    assert process.stdout.readline() == b"0\n"
    process.stdout.close()
    assert (process.wait(timeout=30), process.stderr.read()) == (0, b"")
    process.stderr.close()
