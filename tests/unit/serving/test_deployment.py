"""The deployment folder, and the labels in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf
import yaml
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tests.errors import raises
from tests.unit.serving.server_rules import (
    check_batching,
    check_flags,
    check_models,
    check_monitoring,
)
from tests.unit.serving.servers import NAME, ask, publish_again, running, stable_version, wait_until
from tf_dpce.errors import UserError
from tf_dpce.export.versions import MODEL_FILE
from tf_dpce.serving import tf_serving
from tf_dpce.serving.deployment import (
    deployed_labels,
    promote,
    rollback,
    server_version,
    write_deployment,
)
from tf_dpce.serving.labels import read_config


def add_version(models: Path, name: str, number: int | str, tensorflow: str = "2.20.0") -> Path:
    """Makes a version that holds nothing but the TensorFlow that exported it."""
    saved = SavedModel()
    info = saved.meta_graphs.add().meta_info_def
    info.tags.append("serve")
    info.tensorflow_version = tensorflow
    folder = models / name / str(number)
    folder.mkdir(parents=True)
    (folder / MODEL_FILE).write_bytes(saved.SerializeToString())
    return folder


def damage(version: Path) -> None:
    (version / MODEL_FILE).write_bytes(b"no graph")


@pytest.fixture
def models(tmp_path) -> Path:
    for name in ("birds", "fish"):
        add_version(tmp_path / "saved_models", name, 1)
    # What is no model or no version is passed over.
    (tmp_path / "saved_models" / "README.md").touch()
    for name in ("drafts", "birds/8", "birds/notes"):
        (tmp_path / "saved_models" / name).mkdir()
    return tmp_path / "saved_models"


@pytest.fixture
def folder(models, tmp_path) -> Path:
    """A deployment of the models."""
    write_deployment(models, tmp_path / "deployment")
    return tmp_path / "deployment"


def yaml_of(folder: Path, name: str) -> list:
    return list(yaml.safe_load_all((folder / name).read_text()))


def pod_of(folder: Path, name: str = "kubernetes.yaml") -> tuple[dict, dict]:
    """Returns the specification of a pod, and that of its container."""
    _, deployment, _ = yaml_of(folder, name)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


# --- what is written ------------------------------------------------------------------------------


def test_both_configurations_differ_in_their_paths_alone(models, folder):
    inside, outside = (
        read_config(folder / "models.config"),
        read_config(folder / "host/models.config"),
    )
    for config, root in ((inside, "/models"), (outside, models.resolve())):
        birds, fish = config.model_config_list.config
        assert (birds.name, birds.base_path) == ("birds", f"{root}/birds")
        assert (fish.name, fish.base_path) == ("fish", f"{root}/fish")
        assert birds.model_platform == "tensorflow"
        assert birds.model_version_policy.HasField("all")
        assert dict(birds.version_labels) == {"stable": 1, "canary": 1}


def test_the_server_is_of_the_exporter_s_version(models, folder, toy):
    assert server_version(toy.parent, [NAME]) == tf.__version__
    assert server_version(models, deployed_labels(folder)) == "2.20.0"
    # An export of a later TensorFlow needs a later server, whether it has a label or not: the
    # server loads every version on disk.
    add_version(models, "fish", 2, "9.9.9")
    add_version(models, "fish", 3)
    write_deployment(models, folder)
    assert deployed_labels(folder)["fish"] == {"stable": 1, "canary": 3}
    (compose,) = yaml_of(folder, "compose.yaml")
    assert compose["services"]["serving"]["image"] == "tensorflow/serving:${TF_SERVING:-9.9.9}"
    for name, suffix in (("kubernetes.yaml", ""), ("kubernetes.gpu.yaml", "-gpu")):
        assert pod_of(folder, name)[1]["image"] == f"tensorflow/serving:9.9.9{suffix}"


def test_every_file_keeps_the_rules_of_the_server(folder):
    versions = {"birds": [1], "fish": [1]}
    check_models(folder / "models.config", versions)
    check_models(folder / "host/models.config", versions)
    check_monitoring((folder / "monitoring.config").read_text())
    for name in ("batching-cpu.config", "batching-gpu.config"):
        text = (folder / name).read_text()
        check_batching(text)
        # In a container the server would count the cores of the node, and decode 64 batches at
        # once in the memory of 4.
        assert "num_batch_threads { value: 4 }" in text
    # What fills a batch on a GPU up is decoded as well: 17 images are not to become 64.
    sizes = list(map(int, re.findall(r"allowed_batch_sizes: (\d+)", text)))
    for rows in range(1, 65):
        assert min(size for size in sizes if size >= rows) < 1.5 * rows
    flags = tf_serving.server_flags("/deployment")
    host = tf_serving.server_flags("/deployment", tf_serving.HOST_CONFIG_FILE, cores=None)
    for given in (
        *(flags, host),
        [*flags, *tf_serving.batching_flags("/deployment", "batching-gpu.config")],
    ):
        check_flags(given)


SPLIT = "enable_large_batch_splitting { value: true }"
GPU_SIZES = ["max_batch_size { value: 1024 }", "allowed_batch_sizes: 64"]


@pytest.mark.parametrize(
    "lines",
    [
        # As it was once written for GPUs, and no model loaded.
        GPU_SIZES,
        [*GPU_SIZES, "allowed_batch_sizes: 48", "allowed_batch_sizes: 1024"],
        [*GPU_SIZES, "allowed_batch_sizes: 64", "allowed_batch_sizes: 1024"],
        ["allowed_batch_sizes: 0", "allowed_batch_sizes: 1000"],
        *([f"{field} {{ value: 0 }}"] for field in ("max_batch_size", "max_enqueued_batches")),
        *(["num_batch_threads { value: 0 }"], ["batch_timeout_micros { value: -1 }"]),
        ["enable_large_batch_splitting { value: true }"],
        [
            "enable_large_batch_splitting { value: true }",
            "max_execution_batch_size { value: 1001 }",
        ],
        ["largest_batch { value: 8 }"],
    ],
)
def test_the_rules_find_batches_that_the_server_refuses(lines):
    with pytest.raises(AssertionError):
        check_batching("\n".join(lines))


def test_the_rules_find_models_and_flags_that_the_server_refuses(folder):
    path = folder / "models.config"
    written = path.read_text()
    for old, new in (
        ('name: "fish"', 'name: "birds"'),
        ('"/models/fish"', '"models/fish"'),
        ('model_platform: "tensorflow"', ""),
        ("all {", "latest {"),
        ("value: 1", "value: 2"),
        ('"stable"', '"to-be"'),
    ):
        assert old in written
        path.write_text(written.replace(old, new))
        with pytest.raises(AssertionError):
            check_models(path, {"birds": [1], "fish": [1]})
    flags = tf_serving.server_flags("/deployment")
    for more in ("--grpc_max_treads=64", "--port=8500", "--batching_parameters_file=/a"):
        with pytest.raises(AssertionError):
            check_flags([*flags, more])
    with pytest.raises(AssertionError):
        check_flags(tf_serving.server_flags("/deployment", grpc_port=8501))


def test_by_default_nothing_is_batched_and_many_calls_and_a_slow_load_are_borne(folder):
    # With batching, TF Serving 2.19 and 2.20 waits without end for a request without rows.
    written = [path.read_text() for path in folder.glob("*.yaml") if "batching" not in path.name]
    assert written and not any("enable_batching" in text for text in written)
    # By default 2 cores answered about 7 calls at a time, and declined 41 of 64.
    # A version that cannot be loaded keeps a thread for 5 minutes.
    for flag in ("--grpc_max_threads=64", "--num_load_threads=2"):
        for name in ("compose.yaml", "compose.batching.yaml", "kubernetes.yaml"):
            assert flag in (folder / name).read_text()
        assert flag in tf_serving.server_flags("/deployment", cores=None)


def test_compose_runs_the_server_on_the_loopback_address(models, folder):
    (compose,) = yaml_of(folder, "compose.yaml")
    serving, prometheus = (compose["services"][name] for name in ("serving", "prometheus"))
    assert serving["command"] == tf_serving.server_flags("/deployment")
    assert all(port.startswith("127.0.0.1:") for port in serving["ports"] + prometheus["ports"])
    assert serving["volumes"] == [f"${{MODELS:-{models.resolve()}}}:/models:ro", ".:/deployment:ro"]
    (gpu,) = yaml_of(folder, "compose.gpu.yaml")
    assert gpu["services"]["serving"]["image"] == serving["image"] + "-gpu"
    assert "command" not in gpu["services"]["serving"]
    # The server answers for every model. As Compose reads it: two dollars are one.
    *_, command = serving["healthcheck"]["test"]
    assert command.replace("$$", "$") == tf_serving.health_command(["birds", "fish"])
    assert "$" not in command.replace("$$", "")
    (job,) = yaml_of(folder, "prometheus.yml")[0]["scrape_configs"]
    monitoring = (folder / "monitoring.config").read_text()
    assert f'enable: true path: "{job["metrics_path"]}"' in monitoring


def test_compose_batches_behind_the_gateway_alone(folder):
    text = (folder / "compose.batching.yaml").read_text()
    # Compose itself reads !reset: the ports of compose.yaml are gone.
    (compose,) = yaml.safe_load_all(text.replace("!reset", ""))
    serving, gateway = (compose["services"][name] for name in ("serving", "gateway"))
    assert serving["ports"] == [] and "ports: !reset []" in text
    *flags, enabled, parameters = serving["command"]
    assert flags == tf_serving.server_flags("/deployment")
    assert (enabled, parameters) == (
        "--enable_batching",
        "--batching_parameters_file=/deployment/${BATCHING:-batching-cpu.config}",
    )
    # Clients find the gateway where the server was.
    (compose,) = yaml_of(folder, "compose.yaml")
    assert gateway["ports"] == [compose["services"]["serving"]["ports"][1]]
    assert gateway["volumes"] == ["./gateway.yaml:/gateway.yaml:ro"]


def test_kubernetes_runs_the_same_configuration(folder):
    for file, surge, more in (
        ("kubernetes.yaml", 1, {}),
        # A cluster seldom has a GPU to spare for one more pod.
        ("kubernetes.gpu.yaml", 0, {"nvidia.com/gpu": 1}),
    ):
        config, deployment, service = yaml_of(folder, file)
        pod, container = pod_of(folder, file)
        flags = tf_serving.server_flags("/deployment")
        assert container["args"] == flags
        assert set(config["data"]) == {Path(flag).name for flag in flags if "/deployment/" in flag}
        for name, text in config["data"].items():
            assert text == (folder / name).read_text()
        assert container["resources"]["limits"] == {"cpu": "4", "memory": "8Gi", **more}
        mounts, volumes = container["volumeMounts"], pod["volumes"]
        assert {item["name"] for item in mounts} == {item["name"] for item in volumes}
        spec = deployment["spec"]
        labels = spec["template"]["metadata"]["labels"]
        assert service["spec"]["selector"] == spec["selector"]["matchLabels"] == labels
        rolling = spec["strategy"]["rollingUpdate"]
        assert rolling == {"maxSurge": surge, "maxUnavailable": 1 - surge}
    # A pod starts when every model answers.
    *_, command = container["startupProbe"]["exec"]["command"]
    assert command == tf_serving.health_command(["birds", "fish"])
    # It ends when all is answered, for which a request has 30 seconds. Process 1 ends by no signal.
    assert pod["shareProcessNamespace"] is True
    _, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert 30 < int(seconds) < pod["terminationGracePeriodSeconds"]


def test_no_name_or_path_breaks_a_file(tmp_path):
    models = tmp_path / 'it\'s "quoted" \\ # ü 狗'
    add_version(models, "birds", 1)
    write_deployment(models, tmp_path / "deployment")
    (compose,) = yaml_of(tmp_path / "deployment", "compose.yaml")
    expected = f"${{MODELS:-{models.resolve()}}}:/models:ro"
    assert compose["services"]["serving"]["volumes"][0] == expected
    host = read_config(tmp_path / "deployment" / "host/models.config").model_config_list.config[0]
    assert host.base_path == str(models.resolve() / "birds")
    for number, name in enumerate(("a$HOME", "a:b", "a}b", "a\nb", "a\udcff")):
        add_version(tmp_path / name, "birds", 1)
        with raises("serving.path"):
            write_deployment(tmp_path / name, tmp_path / str(number))
    # A name that somebody wrote into the configuration by hand.
    config = tmp_path / "deployment" / "models.config"
    config.write_text(config.read_text().replace('name: "birds"', 'name: "$(reboot)"'))
    with pytest.raises(UserError):
        promote(models, tmp_path / "deployment", "$(reboot)")


# --- labels ---------------------------------------------------------------------------------------


def test_a_new_version_is_tried_promoted_and_rolled_back(models, folder):
    add_version(models, "birds", 2)
    # A server that starts again tries nothing.
    one = {"stable": 1, "canary": 1}
    for try_newest, birds in ((False, one), (True, {"stable": 1, "canary": 2})):
        write_deployment(models, folder, try_newest)
        assert deployed_labels(folder) == {"birds": birds, "fish": one}

    assert promote(models, folder, "birds") == {"stable": 2, "canary": 2, "previous": 1}
    # Written again, the deployment keeps what the operator chose.
    add_version(models, "birds", 3)
    write_deployment(models, folder)
    assert deployed_labels(folder)["birds"] == {"stable": 2, "canary": 3, "previous": 1}

    assert rollback(models, folder, "birds") == {"stable": 1, "canary": 3}
    assert deployed_labels(folder)["fish"] == one
    for name in ("models.config", "host/models.config"):
        birds, _ = read_config(folder / name).model_config_list.config
        assert dict(birds.version_labels) == {"stable": 1, "canary": 3}
    config, *_ = yaml_of(folder, "kubernetes.yaml")
    assert config["data"]["models.config"] == (folder / "models.config").read_text()


@pytest.mark.parametrize("spoil", [damage, shutil.rmtree])
def test_a_version_that_is_lost_leaves_the_one_before_stable(models, folder, spoil):
    add_version(models, "birds", 2)
    write_deployment(models, folder)
    promote(models, folder, "birds")
    spoil(models / "birds" / "2")
    other = shutil.copytree(folder, folder.with_name("other"))
    write_deployment(models, other)
    assert deployed_labels(other)["birds"] == {"stable": 1, "canary": 1}
    # Nor does it matter what another model has lost: its labels do not move, so they may stay.
    spoil(models / "fish" / "1")
    assert rollback(models, folder, "birds") == {"stable": 1, "canary": 1}
    assert deployed_labels(folder)["fish"] == {"stable": 1, "canary": 1}


def test_labels_that_somebody_else_wrote_stay_or_are_refused(models, folder):
    config = folder / "models.config"
    written = config.read_text()
    config.write_text(written.replace("stable", "prod").replace("canary", "test"))
    for work in (
        lambda: promote(models, folder, "birds"),
        lambda: rollback(models, folder, "birds"),
        lambda: write_deployment(models, folder),
    ):
        with raises("serving.no_stable_label", path=config):
            work()

    config.write_text(written.replace("canary", "prod"))
    add_version(models, "birds", 2)
    write_deployment(models, folder)
    assert deployed_labels(folder)["birds"] == {"stable": 1, "canary": 2, "prod": 1}
    promote(models, folder, "birds")
    expected = {"stable": 2, "canary": 2, "previous": 1, "prod": 1}
    assert deployed_labels(folder)["birds"] == expected


def test_what_cannot_be_moved_is_refused(models, folder, tmp_path):
    with raises("serving.no_deployment", path=tmp_path / "none"):
        promote(models, tmp_path / "none", "birds")
    with raises("serving.nothing_to_promote"):
        promote(models, folder, "birds")
    with raises("serving.no_previous"):
        rollback(models, folder, "birds")
    for name in ("cats", ""):
        with raises("serving.unknown_model", path=folder):
            promote(models, folder, name)
    add_version(models, "birds", 2)
    write_deployment(models, folder)
    promote(models, folder, "birds")
    shutil.rmtree(models / "birds" / "1")
    with raises("serving.version", path=models / "birds" / "1"):
        rollback(models, folder, "birds")
    shutil.rmtree(models / "birds" / "2")
    add_version(models, "birds", 3)
    with raises("serving.stable_gone"):
        write_deployment(models, folder)


def test_folders_that_are_left_out_are_named(models, folder, caplog):
    # The last number is too large for TF Serving.
    for name in ("007", "1.0", "v2", ".hidden", str(2**63)):
        (models / "birds" / name).mkdir()
    (models / "birds" / "6").touch()
    (models / "birds" / "notes.txt").touch()
    for name in ("empty", "bare"):
        (models / name).mkdir()
    shutil.copy(models / "birds" / "1" / MODEL_FILE, models / "bare" / MODEL_FILE)
    damage(add_version(models, "fish", 2))
    # A version whose weights are missing.
    graph = SavedModel.FromString((add_version(models, "fish", 3) / MODEL_FILE).read_bytes())
    graph.meta_graphs[0].saver_def.restore_op_name = "restore"
    (models / "fish" / "3" / MODEL_FILE).write_bytes(graph.SerializeToString())
    (models / ("x" * 200)).mkdir()
    caplog.clear()
    write_deployment(models, folder)
    lines = [line.removeprefix("left out: ") for line in caplog.messages]
    assert [line.partition(" (")[0] for line in lines] == [
        *("bare", "birds/007", "birds/1.0", "birds/6", "birds/8", f"birds/{2**63}"),
        *("birds/notes", "birds/v2", "drafts", "empty", "fish/2", "fish/3", "x" * 77 + "..."),
    ]
    # TF Serving tries to load what has digits for a name, and opens no port meanwhile.
    slow = [line.partition(" (")[0] for line in lines if "5 minutes" in line]
    assert slow == ["birds/007", "birds/6", "birds/8", "fish/2", "fish/3"]
    # None of them gets a label.
    assert deployed_labels(folder)["fish"] == {"stable": 1, "canary": 1}


def test_a_folder_without_models_is_refused(tmp_path):
    folder = tmp_path / "deployment"
    for models in (tmp_path / "missing", tmp_path):
        with raises("serving.no_models", path=models):
            write_deployment(models, folder)
    version = add_version(tmp_path, "birds", 1)
    damage(version)
    with raises("serving.version", path=version):
        write_deployment(tmp_path, folder)
    shutil.rmtree(tmp_path / "birds")
    add_version(tmp_path, "it's", 1)
    with pytest.raises(UserError):
        write_deployment(tmp_path, folder)


def test_a_label_has_moved_or_not_whenever_its_command_ends(models, folder, monkeypatch):
    add_version(models, "birds", 2)
    files = write_deployment(models, folder)

    def interrupted(work: Callable, left: Path, count: int) -> None:
        """Ends a command before it puts the file after `count` files in its place."""
        moved = []

        def replace(source: Path, target: Path) -> None:
            if len(moved) == count:
                raise KeyboardInterrupt
            moved.append(os.rename(source, target))

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, "replace", replace)
            work(models, left, "birds")
            raise KeyboardInterrupt

    for work, before, after in ((promote, 1, 2), (rollback, 2, 1)):
        for count in (0, len(files) - 1, len(files)):
            left = shutil.copytree(folder, folder.with_name(f"{work.__name__}{count}"))
            interrupted(work, left, count)
            stable = deployed_labels(left)["birds"]["stable"]
            assert stable == (after if count == len(files) else before), (work, count)
            assert len(yaml_of(left, "kubernetes.yaml")) == 3
            if stable == before:
                work(models, left, "birds")
            assert deployed_labels(left)["birds"]["stable"] == after
        # The next command begins where this one ended.
        shutil.copytree(left, folder, dirs_exist_ok=True)


# --- a server that reads it -----------------------------------------------------------------------


def is_here(kind: str, models: Path) -> bool:
    """Whether this machine has a server of a kind; an image is not fetched."""
    if kind == "binary":
        return shutil.which(tf_serving.BINARY) is not None
    image = f"{tf_serving.IMAGE}:{server_version(models, [NAME])}"
    found = ["docker", "image", "inspect", image]
    return kind == "development" or bool(
        shutil.which("docker") and not subprocess.run(found, capture_output=True).returncode
    )


@pytest.mark.parametrize("kind", ["development", "binary", "docker"])
def test_a_running_server_follows_promote_and_rollback(kind, toy, tmp_path):
    models, folder = tmp_path / "saved_models", tmp_path / "deployment"
    shutil.copytree(toy, models / NAME)
    if not is_here(kind, models):
        pytest.skip(f"TF Serving is not here: {kind}")
    with running(kind, models, folder) as served:
        # One model that does not answer is enough for the health command to fail.
        for names, fails in (([NAME], 0), ([NAME, "cats"], 1), (["cats", NAME], 1)):
            probe = ["bash", "-c", tf_serving.health_command(names, served.rest_port)]
            assert subprocess.run(probe).returncode == fails

        publish_again(models)
        write_deployment(models, folder)
        assert stable_version(served.rest_port) == 1
        wait_until(lambda: ask(served.rest_port, f"/v1/models/{NAME}/versions/2")[0] == 200)
        promote(models, folder, NAME)
        wait_until(lambda: stable_version(served.rest_port) == 2)
        rollback(models, folder, NAME)
        wait_until(lambda: stable_version(served.rest_port) == 1)
    assert subprocess.run(probe, capture_output=True).returncode != 0
