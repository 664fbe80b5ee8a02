"""The command line as a whole: its verbs, their help, their statuses."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from pipelines.__main__ import VERBS, main

USAGE = 2


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
    "find": ["{missing}", "a dog", "--model", "{missing}"],
    "search": ["--index", "{missing}", "--model", "{missing}", "--text", "a dog"],
    "web": ["--index", "{missing}", "--model", "{missing}"],
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
