"""docs/serving.md keeps its word: its commands are understood, its requests answered."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.export.tiny import WIDTH
from tests.unit.serving.servers import NAME, Served
from tf_dpce.serving.deployment import write_deployment
from tf_dpce.serving.endpoint import MAX_REQUEST_BYTES
from tf_dpce.serving.errors import STATUSES, TOO_LARGE

GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "serving.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines()]
VERBS = [line for line in COMMANDS if line.startswith("python -m pipelines.")]
REQUESTS = [line for line in COMMANDS if "curl" in line]


def here(text: str, served: Served) -> str:
    """The same request to the server of the tests."""
    address = f"{served.host}:{served.rest_port}"
    return text.replace("localhost:8501", address).replace("flickr8k", NAME)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the request is sent by curl")
def test_requests_by_curl_are_answered(served, recorded, tmp_path):
    assert [item for item in COMMANDS if item not in VERBS] == REQUESTS
    (tmp_path / "photo.jpg").write_bytes(recorded["encode_image"].inputs[0])
    for line in REQUESTS:
        command = ["bash", "-c", here(line, served).replace("two dogs run on the beach", "a dog")]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        (row,) = json.loads(done.stdout)["predictions"]
        assert (row["status"], len(row["embedding"])) == (0, WIDTH)


def test_the_error_codes_are_those_of_the_client():
    rows = re.findall(r"^\| .* \| `([A-Z_]+)` \| (\d+) \|$", GUIDE, re.MULTILINE)
    assert len(rows) > 5
    for name, number in rows:
        # An unknown signature has one code over gRPC and another over REST, with one status.
        # Of requests that are too large the status has no name.
        assert int(number) == (TOO_LARGE if name == "RESOURCE_EXHAUSTED" else STATUSES[name][1])


def test_the_script_runs(served, recorded, tmp_path, monkeypatch):
    images = recorded["encode_image"].inputs[:3]
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(images):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(image)
    monkeypatch.chdir(tmp_path)
    (script,) = blocks("python")
    # The vocabulary of the tests' model is small.
    script = here(script, served).replace("two dogs run on the beach", "a dog")
    names = {}
    exec(compile(script, "docs/serving.md", "exec"), names)
    assert sorted(names["best"]) == names["images"]
    # A folder without images is no mistake.
    shutil.rmtree(tmp_path / "photos")
    exec(compile(script, "docs/serving.md", "exec"), names)
    assert names["best"] == []


def test_every_file_of_a_deployment_has_its_row_and_the_limit_is_that_of_the_code(toy, tmp_path):
    named = re.findall(r"`([\w./-]+)`", "".join(re.findall(r"^\| (`.*?) \|", GUIDE, re.MULTILINE)))
    files = write_deployment(toy.parent, tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in files} <= set(named)
    assert f"requests above {MAX_REQUEST_BYTES // 2**20} MiB" in GUIDE
