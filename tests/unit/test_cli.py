"""The command line as a whole: its verbs, their help, their statuses."""

from __future__ import annotations

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


def test_help_names_every_verb(capsys):
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(f"  {verb} " in output for verb in VERBS)


@pytest.mark.parametrize("argv", [[], ["serch"], ["--verbose"]])
def test_no_verb_or_an_unknown_one_is_bad_usage(argv: list[str], capsys):
    assert main(argv) == USAGE
    output = capsys.readouterr()
    assert output.out == "" and "usage: tf-dpce VERB" in output.err


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(verb: str, capsys):
    with pytest.raises(SystemExit) as exit:
        main([verb, "--help"])
    assert exit.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m pipelines.{verb} ")


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_option_is_bad_usage(verb: str, capsys):
    with pytest.raises(SystemExit) as exit:
        main([verb, "--no-such-option", "1"])
    assert exit.value.code == USAGE
    assert "error:" in capsys.readouterr().err


def test_every_parser_is_built_without_tensorflow(project_root: Path):
    code = (
        "import sys; from importlib import import_module; from pipelines.__main__ import VERBS\n"
        "for verb in VERBS: import_module(f'pipelines.{verb}').build_parser()\n"
        "print(sorted({'tensorflow', 'keras', 'faiss', 'matplotlib'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=project_root, capture_output=True, text=True, check=True
    )
    assert answer.stdout == "[]\n"


def test_a_verb_answers_as_a_module_and_as_a_word(project_root: Path):
    as_module = command(project_root, "pipelines.evaluate", "--help")
    as_word = command(project_root, "pipelines", "evaluate", "--help")
    assert as_module.returncode == as_word.returncode == 0
    assert as_module.stdout == as_word.stdout != ""


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


def test_a_mistake_has_no_traceback_in_a_process_of_its_own(project_root: Path, tmp_path: Path):
    argv = ["--run", str(tmp_path / "missing"), "--data", str(tmp_path)]
    answer = command(project_root, "pipelines.evaluate", *argv)
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: ") and answer.stderr.count("\n") == 1
