"""A fleet: machines that die, a driver that dies, a shard that kills; and the bytes stay the same.

The cluster is a real one: its machines are processes here, a head without cores and two others.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray
from moto.s3.responses import S3Response
from ray.cluster_utils import Cluster

from pipelines.embed import main
from pipelines.prepare import main as prepare
from tests.errors import printed_code
from tests.extras.object_store import BUCKET, endpoint, objects, s3, upload
from tests.unit.pipelines.test_embed import draw_images
from tests.unit.search.plain import files_of
from tf_dpce.data.manifest import MANIFEST_FILE

__all__ = ["endpoint", "s3"]

SHARD, IMAGES = 8, 96
OUT = f"{BUCKET}/data"
# Python runs it in every process of the cluster, and in no other. While a file lies beside the
# folder, `images.slow` or `images.poison`, an image takes a while, or one kills its reader.
TRAPS = """
import builtins, os, time
_open = builtins.open

def trapped(path, *arguments, **options):
    folder, name = os.path.split(str(path))
    if name == "0042.jpg" and os.path.exists(folder + ".poison"):
        os._exit(1)
    if name.endswith((".png", ".jpg")) and os.path.exists(folder + ".slow"):
        time.sleep(0.1)
    return _open(path, *arguments, **options)

builtins.open = trapped
"""


class Fleet:
    """A cluster, and the verb run on it."""

    def __init__(self, cluster: Cluster, model: Path) -> None:
        self.cluster, self.model = cluster, model

    def command(self, images: Path | str, out: Path | str) -> list[str]:
        argv = ["--model", str(self.model), "--images", str(images), "--out", str(out)]
        return [*argv, "--shard-size", str(SHARD), "--engine", "ray"]


@pytest.fixture(scope="module")
def fleet(endpoint: str, tiny_export: Path, tmp_path_factory) -> Iterator[Fleet]:
    traps = tmp_path_factory.mktemp("traps")
    (traps / "sitecustomize.py").write_text(TRAPS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{traps}:{Path.cwd()}")
        # A dead machine is missed after 3 seconds.
        periods = {"health_check_period_ms": 1_000, "health_check_failure_threshold": 3}
        settings = {"num_cpus": 0, "include_dashboard": False, "_system_config": periods}
        cluster = Cluster(initialize_head=True, head_node_args=settings)
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        patch.setenv("PYTHONPATH", str(Path.cwd()))
        patch.setenv("RAY_ADDRESS", cluster.address)
        yield Fleet(cluster, tiny_export)
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("collection") / "images"
    draw_images(folder, IMAGES)
    (folder / "0005.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    return folder


@pytest.fixture(scope="module")
def alone(images: Path, tiny_export: Path, tmp_path_factory) -> dict[str, bytes]:
    """What one process leaves behind."""
    out = tmp_path_factory.mktemp("alone")
    options = ["--model", str(tiny_export), "--images", str(images), "--out", str(out)]
    assert main([*options, "--shard-size", str(SHARD)]) == 0
    return files_of(out)


@pytest.fixture
def slow(images: Path) -> Iterator[None]:
    switch = images.with_name("images.slow")
    switch.touch()
    yield
    switch.unlink()


def finished(out: Path) -> list[Path]:
    return sorted(out.glob("images-*.json"))


def wait_for(condition: Callable[[], object], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def test_a_machine_that_is_killed_changes_nothing(fleet, images, alone, slow, tmp_path: Path):
    lost = fleet.cluster.add_node(num_cpus=1)
    command = [sys.executable, "-m", "pipelines.embed", *fleet.command(images, tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as driver:
        wait_for(lambda: len(finished(tmp_path / "out")) >= 3, driver)
        fleet.cluster.remove_node(lost, allow_graceful=False)
        assert len(finished(tmp_path / "out")) < IMAGES // SHARD - 2, "it came too late"
        assert driver.wait(timeout=120) == 0
    assert files_of(tmp_path / "out") == alone


def test_a_driver_that_is_killed_goes_on_where_it_was(fleet, images, alone, slow, tmp_path: Path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pipelines.embed", *fleet.command(images, out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as driver:
        wait_for(lambda: len(finished(out)) >= 2, driver)
        driver.send_signal(signal.SIGKILL)
    before = {path: path.stat().st_mtime_ns for path in finished(out)}
    assert 2 <= len(before) < IMAGES // SHARD
    assert main(fleet.command(images, out)) == 0
    assert files_of(out) == alone
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_poisonous_shard_is_named_and_the_others_are_finished(
    fleet, images, alone, tmp_path: Path, capsys
):
    out, switch = tmp_path / "out", images.with_name("images.poison")
    switch.touch()
    assert main(fleet.command(images, out)) == 1
    switch.unlink()
    said = capsys.readouterr().err
    assert printed_code(said) == "embeddings.failed_shards"
    # It is the sixth, from the image with number 40.
    assert "0040.png" in said.splitlines()[-1]
    others = {f"images-{number:05d}.json" for number in range(IMAGES // SHARD) if number != 5}
    assert {path.name for path in finished(out)} == others
    before = {path: path.stat().st_mtime_ns for path in finished(out)}
    assert main(fleet.command(images, out)) == 0
    assert files_of(out) == alone
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_damaged_shard_is_named_and_a_rerun_embeds_it_alone(fleet, tmp_path: Path, capsys):
    from tests.unit.export.tiny import tiny_data

    data, out = tmp_path / "data", tmp_path / "out"
    tiny_data(data)
    (damaged,) = data.glob("val-*.tfrecord")
    contents = damaged.read_bytes()
    damaged.write_bytes(contents[:-40] + b"?" + contents[-39:])
    assert main(fleet.command(data, out)) == 1
    said = capsys.readouterr().err
    assert printed_code(said) == "embeddings.failed_shards" and damaged.name in said
    names = [path.name for path in finished(out)]
    assert names == ["images-00000.json", "images-00002.json"]
    before = {path: path.stat().st_mtime_ns for path in finished(out)}
    damaged.write_bytes(contents)
    assert main(fleet.command(data, out)) == 0
    assert "continued after 6 of 9 images" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.fixture(scope="module")
def table(images: Path, tmp_path_factory) -> Path:
    """Captions of the images."""
    path = tmp_path_factory.mktemp("table") / "pairs.csv"
    names = sorted(path.name for path in images.iterdir())
    rows = [f"{name},a dog number {place}" for place, name in enumerate(names)]
    path.write_text("\n".join(["image,caption", *rows]))
    return path


def preparation(table: Path | str, images: Path | str, out: Path | str) -> list[str]:
    options = ["--source", "table", "--annotations", str(table), "--images", str(images)]
    return [*options, "--out", str(out), "--engine"]


def test_prepared_shards_are_those_of_one_process(fleet, images, table, tmp_path: Path):
    found = []
    for engine in ("local", "ray"):
        assert prepare([*preparation(table, images, tmp_path / engine), engine]) == 0
        found.append(files_of(tmp_path / engine))
    assert found[0] == found[1]
    assert "0005.png" in found[0]["rejected.jsonl"].decode()


def test_a_bucket_is_prepared_though_a_machine_is_killed(
    fleet, images, table, s3, tmp_path: Path, monkeypatch
):
    url = upload(s3, images, f"{BUCKET}/images")
    captions = f"{upload(s3, table.parent, f'{BUCKET}/table')}/pairs.csv"
    assert prepare([*preparation(captions, url, tmp_path / "alone"), "local"]) == 0
    read: list[str] = []
    answer = S3Response.key_response

    def slow(server: S3Response, request: Any, *arguments: Any) -> Any:
        if request.method == "GET" and request.path.endswith((".png", ".jpg")):
            read.append(request.path)
            time.sleep(0.05)
        return answer(server, request, *arguments)

    monkeypatch.setattr(S3Response, "key_response", slow)
    monkeypatch.setattr("tf_dpce.data.validate_images._IMAGES_PER_CALL", 4)
    lost = fleet.cluster.add_node(num_cpus=1)

    def kill() -> None:
        deadline = time.monotonic() + 240
        while len(read) < 30 and time.monotonic() < deadline:
            time.sleep(0.05)
        fleet.cluster.remove_node(lost, allow_graceful=False)
        read.append("killed")

    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(kill)
        assert prepare([*preparation(captions, url, f"{BUCKET}/data"), "ray"]) == 0
        killed.result()
    assert read.index("killed") < 80, "it came too late"
    assert objects(s3, f"{BUCKET}/data") == files_of(tmp_path / "alone")


def test_images_that_kill_who_reads_them_are_named_and_nothing_is_published(
    fleet, images, table, s3, capsys
):
    switch, command = images.with_name("images.poison"), preparation(table, images, OUT)
    switch.touch()
    assert prepare([*command, "ray"]) == 1
    switch.unlink()
    said = capsys.readouterr().err
    assert printed_code(said) == "ray.worker_died" and str(images) in said.splitlines()[-1]
    assert objects(s3, OUT) == {}
    assert prepare([*command, "ray"]) == 0 and MANIFEST_FILE in objects(s3, OUT)


def test_a_fleet_reads_and_writes_a_bucket(fleet, images, alone, s3, capsys):
    url = upload(s3, images, f"{BUCKET}/images")
    assert main(fleet.command(url, f"{BUCKET}/out")) == 0
    found = objects(s3, f"{BUCKET}/out")
    assert set(found) == set(alone)
    for name in alone:
        if name.endswith(".npy"):
            assert found[name] == alone[name], name


def test_what_is_wrong_with_a_cluster_is_said_in_a_line(
    images, tiny_export, tmp_path, capsys, monkeypatch
):
    command = Fleet(None, tiny_export).command(images, tmp_path / "out")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    assert main(command) == 1
    assert printed_code(capsys.readouterr().err) == "ray.unreachable"
    assert not (tmp_path / "out").exists()
