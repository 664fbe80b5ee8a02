"""Which code and which machine a figure belongs to."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import tf_dpce
from tf_dpce.machine import code_version, machine_facts

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's file as it would lie in somebody's folder."""
    file = tmp_path / "tf_dpce" / "__init__.py"
    file.parent.mkdir()
    file.write_text("")
    monkeypatch.setattr(tf_dpce, "__file__", str(file))
    # The search for a repository goes no further up than the test's own folder.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return file


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_without_a_repository_or_without_git_it_is_the_version(
    package: Path, monkeypatch: pytest.MonkeyPatch
):
    assert code_version() == f"version {tf_dpce.__version__}"
    monkeypatch.setenv("PATH", "")
    assert code_version() == f"version {tf_dpce.__version__}"


@needs_git
def test_in_a_repository_it_is_the_commit_and_whether_files_differ(package: Path):
    root = package.parents[1]
    git(root, "init")
    # It has no commit yet.
    assert code_version() == f"version {tf_dpce.__version__}"
    git(root, "add", ".")
    git(root, "commit", "-m", "first")
    commit = git(root, "rev-parse", "HEAD")
    git(root, "tag", "v9")
    assert code_version() == commit and len(commit) == 40
    package.write_text("changed = True\n")
    assert code_version() == f"{commit}-dirty"


def test_the_machine_says_what_it_has():
    facts = machine_facts()
    assert facts["cpu"] and 1 <= facts["cores"] <= os.cpu_count()
    assert facts["memory_gib"] > 0
    assert facts["tensorflow"].startswith("2.") and facts["keras"].startswith("3.")
