"""The deployment under the real TF Serving, where this machine has it."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

from tests.unit.serving.servers import NAME, ask, publish_again, running, wait_until
from tf_dpce.export.golden import load_examples
from tf_dpce.serving import Client
from tf_dpce.serving.deployment import deployed_labels, promote, write_deployment
from tf_dpce.serving.saved_model_info import server_version
from tf_dpce.serving.tf_serving import BINARY, IMAGE


def has_image(name: str) -> bool:
    """Whether Docker runs and has the image; it is not fetched."""
    command = ["docker", "image", "inspect", name]
    return (
        bool(shutil.which("docker")) and not subprocess.run(command, capture_output=True).returncode
    )


def test_it_answers_what_was_recorded_and_follows_its_labels(exported, tmp_path):
    models, folder = tmp_path / "saved_models", tmp_path / "deployment"
    shutil.copytree(exported.parent, models / NAME)
    write_deployment(models, folder)
    version = server_version(models, deployed_labels(folder))
    image = f"{IMAGE}:{version}"
    kind = "binary" if shutil.which(BINARY) else "docker" if has_image(image) else None
    if kind is None:
        pytest.skip(f"neither {BINARY} nor the image {image} is here")
    recorded = load_examples(exported)["encode_image"]
    with running(kind, models, folder) as served:
        ports = {"http": served.rest_port, "grpc": served.grpc_port}
        for scheme, port in ports.items():
            with Client(f"{scheme}://127.0.0.1:{port}", NAME, label="stable") as client:
                vectors, codes = client.encode_with_status("images", recorded.inputs)
            np.testing.assert_allclose(vectors, recorded.embeddings, atol=1e-5)
            np.testing.assert_array_equal(codes, recorded.statuses)
        publish_again(models)
        write_deployment(models, folder)
        path = f"/v1/models/{NAME}/labels/stable/metadata"
        wait_until(lambda: ask(served.rest_port, f"/v1/models/{NAME}/versions/2")[0] == 200)
        promote(models, folder, NAME)
        wait_until(lambda: ask(served.rest_port, path)[1]["model_spec"]["version"] == "2")
