"""`serve`: which server it starts, how, and what it writes instead."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import serve
from tests.errors import printed_code
from tests.mounts import mounted
from tests.unit.serving.servers import free_port
from tf_dpce.serving import Client


@pytest.fixture
def models(tiny_export, tmp_path) -> Path:
    shutil.copytree(tiny_export, tmp_path / "saved_models" / "tiny")
    return tmp_path / "saved_models"


def stand_in(folder: Path, name: str, script: str) -> None:
    """Puts a program of this name, a shell script, into a folder."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


class Started(Exception):
    """What `serve` would have become: a program and its arguments."""


@pytest.fixture
def command(monkeypatch, tmp_path, capsys) -> Callable[..., list[str]]:
    """Returns the command that `serve` becomes, without becoming it."""

    def become(program: str, words: list[str]) -> None:
        raise Started(words)

    def run(*options: str) -> list[str]:
        with pytest.raises(Started) as caught:
            serve.main([str(option) for option in options])
        return caught.value.args[0]

    monkeypatch.setattr(os, "execvp", become)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return run


@pytest.fixture
def ports() -> list[str]:
    return ["--grpc-port", str(free_port()), "--rest-port", str(free_port())]


def test_tf_serving_is_started_if_it_is_installed_and_no_label_moves(
    command, models, tmp_path, ports, capsys
):
    stand_in(tmp_path / "bin", "tensorflow_model_server", "true")
    folder = models.resolve() / ".serving"
    for _ in range(2):
        program, *flags = command("--models", models, *ports)
        labels, started = capsys.readouterr().out.splitlines()
        assert labels == "tiny: stable is version 1, canary is version 1"
        assert program == "tensorflow_model_server" and program in started
        assert flags == [
            f"--model_config_file={folder}/host/models.config",
            "--model_config_file_poll_wait_seconds=5",
            "--allow_version_labels_for_unavailable_models",
            "--num_load_threads=2",
            f"--port={ports[1]}",
            f"--rest_api_port={ports[3]}",
            "--grpc_max_threads=64",
            f"--monitoring_config_file={folder}/monitoring.config",
        ]
        # Every file that is named is there.
        assert all(Path(flag.partition("=")[2]).is_file() for flag in flags if "_file=" in flag)
        shutil.copytree(models / "tiny" / "1", models / "tiny" / "2", dirs_exist_ok=True)


def test_else_its_image_if_docker_runs(command, models, tmp_path, ports, monkeypatch):
    stand_in(tmp_path / "bin", "docker", 'test "$1" = version')
    words = command("--models", models, *ports)
    assert words[:4] == ["docker", "run", "--rm", "--init"]
    options = list(zip(words[4:12:2], words[5:12:2], strict=True))
    assert options == [
        ("-p", f"{ports[1]}:8500"),
        ("-p", f"{ports[3]}:8501"),
        ("-v", f"{models.resolve()}:/models:ro"),
        ("-v", f"{models.resolve()}/.serving:/deployment:ro"),
    ]
    assert words[12].startswith("tensorflow/serving:2.")
    assert "--model_config_file=/deployment/models.config" in words[13:]
    # The variable that Compose reads names another version here as well.
    monkeypatch.setenv("TF_SERVING", "2.19.1")
    assert "tensorflow/serving:2.19.1" in command("--models", models, *ports)


@pytest.mark.process
def test_else_the_development_server_which_ends_when_asked(project_root, models, tmp_path, ports):
    stand_in(tmp_path / "bin", "docker", "exit 1")
    command = [sys.executable, "-m", "pipelines.serve", "--models", str(models), *ports]
    process = subprocess.Popen(
        command,
        cwd=project_root,
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline().startswith("tiny: ")
        assert "development server" in process.stderr.readline()
        ready = process.stdout.readline()
        for address in (f"grpc://127.0.0.1:{ports[1]}", f"http://127.0.0.1:{ports[3]}"):
            assert address in ready
        with Client(f"http://127.0.0.1:{ports[3]}", "tiny", label="stable") as client:
            assert client.encode_texts(["a dog"]).shape == (1, 16)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def test_a_deployment_is_written_and_nothing_started(models, tmp_path, capsys):
    folder = tmp_path / "deployment"
    options = ["--models", str(models), "--write", str(folder)]
    assert serve.main(options) == 0
    named = capsys.readouterr().out.splitlines()
    assert sorted(named) == sorted(str(path) for path in folder.rglob("*") if path.is_file())

    shutil.copytree(models / "tiny" / "1", models / "tiny" / "2")
    assert serve.main(options) == 0
    capsys.readouterr()
    for option, labels in (
        ("--promote", "stable is version 2, previous is version 1, canary is version 2"),
        ("--rollback", "stable is version 1, canary is version 1"),
    ):
        assert serve.main([*options, option, "tiny"]) == 0
        assert capsys.readouterr().out == f"tiny: {labels}\n"
    # An empty name is no model, and starts no server.
    for argv, code in (
        ([*options, "--rollback", "tiny"], "no_previous"),
        ([*options, "--promote", ""], "unknown_model"),
        ([*options, "--rollback", ""], "unknown_model"),
        (["--models", str(models), "--promote", ""], "no_deployment"),
    ):
        assert serve.main(argv) == 1
        assert printed_code(capsys.readouterr().err) == f"serving.{code}"


def test_ports_are_checked_before_anything_is_written(models, ports, capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = str(server.getsockname()[1])
        for grpc_port, rest_port in ((taken, ports[3]), (ports[1], taken), (ports[1], ports[1])):
            options = ["--grpc-port", grpc_port, "--rest-port", rest_port]
            assert serve.main(["--models", str(models), *options]) == 1
            assert printed_code(capsys.readouterr().err) == "serving.port"
    assert not (models / ".serving").exists()
    for options in (
        *(["--rest-port", port] for port in ("0", "65536", "http")),
        ["--write", "one", "--deployment", "other"],
        ["--promote", "tiny", "--rollback", "tiny"],
    ):
        with pytest.raises(SystemExit) as exit:
            serve.main(["--models", str(models), *options])
        assert exit.value.code == 2
        assert options[0].strip("-") in capsys.readouterr().err


def test_models_that_cannot_be_written_to_are_served(command, models, tmp_path, ports, capsys):
    folder = tmp_path / "deployment"
    stand_in(tmp_path / "bin", "tensorflow_model_server", "true")
    with mounted(models, "ro"):
        assert serve.main(["--models", str(models), *ports]) == 1
        assert printed_code(capsys.readouterr().err) == "serving.read_only"
        words = command("--models", models, *ports, "--deployment", folder)
    assert f"--model_config_file={folder.resolve()}/host/models.config" in words
