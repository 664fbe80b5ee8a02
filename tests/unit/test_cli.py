"""The command line as a whole: its verbs, their help, their statuses."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from pipelines.__main__ import VERBS, main

USAGE = 2


def command(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=root, capture_output=True, text=True, timeout=60
    )


def test_the_list_of_verbs_is_the_folder_of_verbs(project_root: Path):
    files = {path.stem for path in (project_root / "pipelines").glob("[!_]*.py")}
    assert set(VERBS) == files


def test_help_names_every_verb_and_an_unknown_one_is_bad_usage(capsys):
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(f"  {verb} " in output for verb in VERBS)
    for argv in ([], ["serch"], ["--verbose"]):
        assert main(argv) == USAGE
        output = capsys.readouterr()
        assert output.out == "" and "usage: tf-dpce VERB" in output.err


def test_help_and_an_unknown_option_of_each_verb(capsys):
    for verb in VERBS:
        for option, status in (("--help", 0), ("--no-such-option", USAGE)):
            with pytest.raises(SystemExit) as exit:
                main([verb, option])
            assert exit.value.code == status
        output = capsys.readouterr()
        assert output.out.startswith(f"usage: python -m pipelines.{verb} ")
        assert not re.search("<(class|function)|null|typing", output.out), "for programmers"
        assert "error:" in output.err


def test_a_verb_answers_as_a_module_and_as_a_word(project_root: Path, tmp_path: Path):
    argv = ["evaluate", "--run", str(tmp_path / "missing"), "--data", str(tmp_path)]
    as_word = command(project_root, "pipelines", *argv)
    as_module = command(project_root, "pipelines.evaluate", *argv[1:])
    assert as_word.returncode == as_module.returncode == 1
    # One line without a traceback.
    assert as_word.stderr == as_module.stderr
    assert as_word.stderr.startswith("error: ") and as_word.stderr.count("\n") == 1


MISTAKES = {
    "prepare": ["--source", "flickr8k", "--root", "{missing}", "--out", "{out}"],
    "train": ["--preset", "flickr8k", "--data", "{missing}", "--run", "{out}"],
    "evaluate": ["--run", "{missing}", "--data", "{missing}"],
    "ablate": ["objective", "--data", "{missing}", "--out", "{out}"],
    "export": ["--run", "{missing}", "--to", "{out}"],
    "verify": ["{missing}"],
    "serve": ["--models", "{missing}", "--write", "{out}"],
    "embed": ["--model", "{missing}", "--texts", "{missing}", "--out", "{out}"],
    "index": ["--embeddings", "{missing}", "--out", "{out}"],
    "search": ["--index", "{missing}", "--model", "{missing}", "--text", "a dog"],
}


@pytest.mark.parametrize("verb", MISTAKES)
def test_a_missing_folder_is_one_line_that_names_it(verb: str, tmp_path: Path, capsys):
    missing, out = tmp_path / "missing", tmp_path / "out"
    argv = [argument.format(missing=missing, out=out) for argument in MISTAKES[verb]]
    assert import_module(f"pipelines.{verb}").main(argv) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ") and str(missing) in lines[0]
    assert not out.exists(), "nothing is left where a reader would take it for whole"
