"""README.md keeps its word: what it tells a reader to type is understood.

Here every command is parsed and every name is looked up. Whole lines are run, on small data, by
tests/integration.
"""

from __future__ import annotations

import ast
import base64
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from pathlib import Path

import pytest

from pipelines.__main__ import VERBS

PROJECT = Path(__file__).resolve().parents[2]
README = (PROJECT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


COMMANDS = [
    line
    for block in blocks("bash")
    for line in block.replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]
VERB_PREFIXES = ("python -m pipelines.", "tf-dpce ")
VERB_COMMANDS = [line for line in COMMANDS if line.startswith(VERB_PREFIXES)]
MAKE_COMMANDS = [line for line in COMMANDS if line.startswith("make ")]
REQUESTS = [line for line in COMMANDS if "curl " in line]
OTHER_COMMANDS = [line for line in COMMANDS if line not in VERB_COMMANDS + MAKE_COMMANDS + REQUESTS]


def test_there_are_commands_and_they_name_every_verb_but_the_one_that_make_runs():
    named = {line.removeprefix(VERB_PREFIXES[0]).split()[0] for line in VERB_COMMANDS}
    assert named == set(VERBS) - {"demo"}
    assert "make demo" in MAKE_COMMANDS and "make test" in MAKE_COMMANDS


@pytest.mark.parametrize("line", VERB_COMMANDS)
def test_the_verb_understands_its_command(line: str):
    verb, *argv = shlex.split(line.replace("tf-dpce ", VERB_PREFIXES[0]))[2:]
    module = import_module(verb)
    assert module.build_parser().parse_args(argv)


@pytest.mark.parametrize("line", MAKE_COMMANDS)
def test_make_has_the_target(line: str):
    answer = subprocess.run(
        ["make", "--dry-run", *shlex.split(line)[1:]], cwd=PROJECT, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr


# What is neither a verb, a target nor a request, with the check that stands for running it.
def _is_activation(words: list[str]) -> bool:
    return words == ["source", ".venv/bin/activate"]


def _is_tensorboard(words: list[str]) -> bool:
    script = Path(sys.executable).with_name("tensorboard")
    return words[0] == "tensorboard" and words[1] == "--logdir" and script.exists()


def _is_installation(words: list[str]) -> bool:
    return words[:3] == [".venv/bin/pip", "install", "-r"] and (PROJECT / words[3]).exists()


def _is_ci(words: list[str]) -> bool:
    return words == [".ci/run"] and shutil.which(PROJECT / ".ci" / "run") is not None


def _is_serving(words: list[str]) -> bool:
    """The server's version is that of TensorFlow; the mounted name is the name it serves."""
    (pin,) = re.findall(r"^tensorflow==(.+)$", (PROJECT / "requirements.txt").read_text(), re.M)
    name = words[words.index("-e") + 1].removeprefix("MODEL_NAME=") if "-e" in words else ""
    mounted = f"/models/{name}" in " ".join(words)
    return words[0] == "docker" and words[-1] == f"tensorflow/serving:{pin}" and mounted


CHECKS = {
    "source": _is_activation,
    "tensorboard": _is_tensorboard,
    ".venv/bin/pip": _is_installation,
    ".ci/run": _is_ci,
    "docker": _is_serving,
}


@pytest.mark.parametrize("line", OTHER_COMMANDS)
def test_any_other_command_is_well_formed(line: str):
    words = shlex.split(line)
    assert words[0] in CHECKS, f"say here how to check `{words[0]}`"
    assert CHECKS[words[0]](words)


class _Listener(BaseHTTPRequestHandler):
    """Stands where TF Serving would, and keeps what it is sent."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, json.loads(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def listener() -> Iterator[HTTPServer]:
    server = HTTPServer(("localhost", 0), _Listener)
    server.received = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="the requests are sent by curl")
def test_the_requests_carry_a_image_and_a_sentence(listener: HTTPServer, tmp_path: Path):
    # Every byte value, and more than one line of base64.
    contents = bytes(range(256)) * 40
    (tmp_path / "dog.jpg").write_bytes(contents)
    for line in REQUESTS:
        command = line.replace("localhost:8501", f"localhost:{listener.server_port}")
        subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, capture_output=True)
    (path, image), (_, text) = listener.received
    assert path == "/v1/models/flickr8k:predict"
    assert image["signature_name"] == "encode_image"
    assert [base64.b64decode(row["b64"]) for row in image["instances"]] == [contents]
    assert text["signature_name"] == "encode_text"
    assert text["instances"] == ["two dogs run on the beach"]


@pytest.mark.parametrize("source", blocks("python"))
def test_a_python_block_compiles_and_imports_what_exists(source: str):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                import_module(alias.name)
        if isinstance(node, ast.ImportFrom):
            module = import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


def test_every_verb_has_its_row():
    assert re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE) == list(VERBS)


def test_the_status_codes_are_those_of_the_library():
    from tf_dpce.preprocessing.status import REASONS

    rows = re.findall(r"^\| (\d) \| (.+?)(?: \(.+\))? \|$", README, re.MULTILINE)
    assert [(int(code), reason) for code, reason in rows] == sorted(REASONS.items())


def test_every_folder_of_the_tree_exists_and_every_room_is_in_it():
    (tree,) = (block for block in blocks("text") if block.startswith("tf_dpce/"))
    names = re.findall(r"^( *)([\w.]+)/ ", tree, re.MULTILINE)
    paths = {f"tf_dpce/{name}" if indent else name for indent, name in names}
    assert sorted(path for path in paths if not (PROJECT / path).is_dir()) == []
    rooms = {f"tf_dpce/{p.parent.name}" for p in (PROJECT / "tf_dpce").glob("*/__init__.py")}
    assert sorted(rooms - paths) == []


def test_every_link_into_the_repository_leads_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    local = [target for target in targets if "://" not in target]
    assert local and [target for target in local if not (PROJECT / target).exists()] == []


def test_every_measured_number_is_filled_in():
    assert "MEASURE:" not in README
