"""`serve`: which server it starts, how, and what it writes instead."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import serve
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


def start(
    project_root: Path, models: Path, path: Path, *options: str, **environment: str
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines.serve", "--models", str(models), *options]
    return subprocess.Popen(
        command,
        cwd=project_root,
        env={**os.environ, "PATH": f"{path}:/usr/bin:/bin", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def ports() -> list[str]:
    return ["--grpc-port", str(free_port()), "--rest-port", str(free_port())]


def test_tf_serving_is_started_where_it_is_installed(project_root, models, tmp_path, ports):
    stand_in(tmp_path / "bin", "tensorflow_model_server", 'printf "%s\\n" "$@"')
    process = start(project_root, models, tmp_path / "bin", *ports)
    output, _ = process.communicate(timeout=120)
    labels, first, *flags = output.splitlines()
    assert labels == "tiny: stable is version 1, canary is version 1"
    folder = models.resolve() / ".serving"
    assert first.startswith("TF Serving as it is installed: tensorflow_model_server ")
    assert flags == [
        f"--model_config_file={folder}/host/models.config",
        "--model_config_file_poll_wait_seconds=5",
        "--allow_version_labels_for_unavailable_models",
        f"--port={ports[1]}",
        f"--rest_api_port={ports[3]}",
        "--enable_batching",
        f"--batching_parameters_file={folder}/host/batching-cpu.config",
        f"--monitoring_config_file={folder}/monitoring.config",
    ]
    # Every file that is named is there.
    assert all(Path(flag.partition("=")[2]).is_file() for flag in flags if "_file=" in flag)


def test_else_its_image_where_docker_runs(project_root, models, tmp_path, ports):
    stand_in(tmp_path / "bin", "docker", 'test "$1" = version || printf "%s\\n" "$@"')
    process = start(project_root, models, tmp_path / "bin", *ports)
    output, _ = process.communicate(timeout=120)
    _, first, *words = output.splitlines()
    assert first.startswith("TF Serving in Docker: docker run ")
    assert words[:3] == ["run", "--rm", "--init"]
    options = list(zip(words[3:11:2], words[4:11:2], strict=True))
    assert options == [
        ("-p", f"{ports[1]}:8500"),
        ("-p", f"{ports[3]}:8501"),
        ("-v", f"{models.resolve()}:/models:ro"),
        ("-v", f"{models.resolve()}/.serving:/deployment:ro"),
    ]
    assert words[11].startswith("tensorflow/serving:2.")
    assert "--model_config_file=/deployment/models.config" in words[12:]


def test_a_variable_names_the_version_of_the_image(project_root, models, tmp_path, ports):
    stand_in(tmp_path / "bin", "docker", 'test "$1" = version || printf "%s\n" "$@"')
    process = start(project_root, models, tmp_path / "bin", *ports, TF_SERVING="2.19.1")
    output, _ = process.communicate(timeout=240)
    assert "tensorflow/serving:2.19.1" in output.splitlines()


def test_else_the_development_server_which_ends_when_asked(project_root, models, tmp_path):
    stand_in(tmp_path / "bin", "docker", "exit 1")
    ports = [free_port(), free_port()]
    options = ["--grpc-port", str(ports[0]), "--rest-port", str(ports[1])]
    process = start(project_root, models, tmp_path / "bin", *options)
    try:
        assert process.stdout.readline().startswith("tiny: ")
        assert "development server" in process.stderr.readline()
        ready = process.stdout.readline()
        for address in (f"grpc://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"):
            assert address in ready
        with Client(f"http://127.0.0.1:{ports[1]}", "tiny", label="stable") as client:
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
    assert serve.main([*options, "--promote", "tiny"]) == 0
    shown = "tiny: stable is version 2, previous is version 1, canary is version 2\n"
    assert capsys.readouterr().out == shown
    assert serve.main([*options, "--rollback", "tiny"]) == 0
    assert capsys.readouterr().out == "tiny: stable is version 1, canary is version 1\n"
    assert serve.main([*options, "--rollback", "tiny"]) == 1
    assert capsys.readouterr().err.startswith("error: tiny has no version to go back to")


@pytest.mark.parametrize("option", ["--promote", "--rollback"])
def test_an_empty_name_is_no_model(models, tmp_path, capsys, option):
    options = ["--models", str(models), "--write", str(tmp_path / "deployment")]
    assert serve.main(options) == 0
    capsys.readouterr()
    assert serve.main([*options, option, ""]) == 1
    assert capsys.readouterr().err.endswith("has no model '': it has tiny\n")
    # Nor does it start a server, where none was written.
    assert serve.main(["--models", str(models), option, ""]) == 1
    assert "make it with `serve --write`" in capsys.readouterr().err


@pytest.mark.parametrize("which", ["--grpc-port", "--rest-port"])
def test_a_taken_port_is_told_before_anything_is_written(models, ports, capsys, which):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = str(server.getsockname()[1])
        ports[ports.index(which) + 1] = taken
        assert serve.main(["--models", str(models), *ports]) == 1
    assert capsys.readouterr().err.startswith(f"error: port {taken} is taken")
    assert not (models / ".serving").exists()


def test_a_port_for_both_is_told(models, ports, capsys):
    ports[3] = ports[1]
    assert serve.main(["--models", str(models), *ports]) == 1
    assert "gRPC and REST need a port each" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "65536", "70000", "-1", "http"])
def test_a_number_that_is_no_port_is_bad_usage(models, capsys, port):
    with pytest.raises(SystemExit) as exit:
        serve.main(["--models", str(models), "--rest-port", port])
    assert exit.value.code == 2
    assert "rest-port" in capsys.readouterr().err


def test_a_start_moves_no_label(project_root, models, tmp_path, ports):
    stand_in(tmp_path / "bin", "tensorflow_model_server", "true")
    for _ in range(2):
        output, _ = start(project_root, models, tmp_path / "bin", *ports).communicate(timeout=120)
        assert output.startswith("tiny: stable is version 1, canary is version 1\n")
        shutil.copytree(models / "tiny" / "1", models / "tiny" / "2", dirs_exist_ok=True)


def test_models_that_cannot_be_written_to_are_served(project_root, models, tmp_path, ports, capsys):
    folder = tmp_path / "deployment"
    with mounted(models, "ro"):
        assert serve.main(["--models", str(models), *ports]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: the deployment {models / '.serving'} cannot be written")
        assert line.endswith("name a folder for it by --deployment")

        stand_in(tmp_path / "bin", "tensorflow_model_server", 'printf "%s\\n" "$@"')
        options = [*ports, "--deployment", str(folder)]
        output, _ = start(project_root, models, tmp_path / "bin", *options).communicate(timeout=120)
    assert f"--model_config_file={folder.resolve()}/host/models.config" in output


def test_to_write_and_to_start_at_once_is_bad_usage(models):
    with pytest.raises(SystemExit) as exit:
        serve.main(["--models", str(models), "--write", "one", "--deployment", "other"])
    assert exit.value.code == 2


def test_promote_and_rollback_at_once_is_bad_usage(models):
    options = ["--models", str(models), "--promote", "tiny", "--rollback", "tiny"]
    with pytest.raises(SystemExit) as exit:
        serve.main(options)
    assert exit.value.code == 2
