"""The deployment folder, and the labels in it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
import yaml
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tests.errors import raises
from tests.unit.serving.servers import NAME, ask, publish_again, running, wait_until
from tf_dpce.errors import UserError
from tf_dpce.export.versions import MODEL_FILE
from tf_dpce.serving.deployment import deployed_labels, promote, rollback, write_deployment
from tf_dpce.serving.model_config import read_config
from tf_dpce.serving.saved_model_info import server_version
from tf_dpce.serving.tf_serving import HOST_CONFIG_FILE, health_command, server_flags

FLAGS = [
    "--model_config_file=/deployment/models.config",
    "--model_config_file_poll_wait_seconds=5",
    "--allow_version_labels_for_unavailable_models",
    "--port=8500",
    "--rest_api_port=8501",
    "--enable_batching",
    "--batching_parameters_file=/deployment/batching-cpu.config",
    "--monitoring_config_file=/deployment/monitoring.config",
    "--tensorflow_intra_op_parallelism=4",
    "--tensorflow_inter_op_parallelism=4",
]
GPU_FLAGS = [flag.replace("batching-cpu", "batching-gpu") for flag in FLAGS]


def add_version(models: Path, name: str, number: int | str, tensorflow: str = "2.20.0") -> Path:
    """Makes a version that holds nothing but the TensorFlow that exported it."""
    saved = SavedModel()
    saved.meta_graphs.add().meta_info_def.tensorflow_version = tensorflow
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
    # What is no model is passed over.
    (tmp_path / "saved_models" / "README.md").touch()
    (tmp_path / "saved_models" / "drafts").mkdir()
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
    inside, outside = read_config(folder / "models.config"), read_config(folder / HOST_CONFIG_FILE)
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


def test_batching_keeps_the_rules_of_the_server(folder):
    # There is no proto to parse it by. Sizes rise, and the last is the largest that is run.
    known = "max_batch_size|batch_timeout_micros|max_enqueued_batches|num_batch_threads"
    known += "|enable_large_batch_splitting|max_execution_batch_size"
    sizes = {}
    for name in ("batching-cpu.config", "batching-gpu.config", "host/batching-cpu.config"):
        text = (folder / name).read_text()
        pattern = rf"(({known}) {{ value: (\d+|true) }}\n|allowed_batch_sizes: \d+\n)+"
        assert re.fullmatch(pattern, text)
        sizes[name] = list(map(int, re.findall(r"allowed_batch_sizes: (\d+)", text)))
        largest = int(re.search(r"max_execution_batch_size { value: (\d+)", text)[1])
        assert sizes[name] == sorted(set(sizes[name])) and sizes[name][-1:] in ([], [largest])
        # In a container the server would count the cores of the node, and decode 64 batches at
        # once in the memory of 4.
        assert ("num_batch_threads { value: 4 }" in text) == (not name.startswith("host/"))
    # What fills a batch on a GPU up is decoded as well: 17 images are not to become 64.
    gpu = sizes["batching-gpu.config"]
    for rows in range(1, gpu[-1] + 1):
        assert min(size for size in gpu if size >= rows) < 1.5 * rows
    assert len(gpu) <= 12, "each is tuned for at its first request"


def test_compose_runs_the_server_on_the_loopback_address(models, folder):
    (compose,) = yaml_of(folder, "compose.yaml")
    serving, prometheus = (compose["services"][name] for name in ("serving", "prometheus"))
    assert serving["command"] == FLAGS == server_flags("/deployment")
    assert serving["ports"] == ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]
    assert serving["volumes"] == [f"${{MODELS:-{models.resolve()}}}:/models:ro", ".:/deployment:ro"]
    assert serving["init"] and serving["read_only"] and serving["cap_drop"] == ["ALL"]
    assert (serving["cpus"], serving["mem_limit"]) == (4, "8G")
    assert prometheus["ports"] == ["127.0.0.1:9090:9090"]
    (gpu,) = yaml_of(folder, "compose.gpu.yaml")
    assert gpu["services"]["serving"]["image"] == serving["image"] + "-gpu"
    assert gpu["services"]["serving"]["command"] == GPU_FLAGS
    # The server answers for every model. As Compose reads it: two dollars are one.
    *_, command = serving["healthcheck"]["test"]
    assert command.replace("$$", "$") == health_command(["birds", "fish"])
    assert "$" not in command.replace("$$", "")
    (job,) = yaml_of(folder, "prometheus.yml")[0]["scrape_configs"]
    assert (
        f'enable: true path: "{job["metrics_path"]}"' in (folder / "monitoring.config").read_text()
    )
    assert job["static_configs"] == [{"targets": ["serving:8501"]}]


def test_kubernetes_runs_the_same_configuration(folder):
    limits = {"cpu": "4", "memory": "8Gi"}
    for file, flags, surge, more in (
        ("kubernetes.yaml", FLAGS, 1, {}),
        # A cluster seldom has a GPU to spare for one more pod.
        ("kubernetes.gpu.yaml", GPU_FLAGS, 0, {"nvidia.com/gpu": 1}),
    ):
        config, deployment, service = yaml_of(folder, file)
        pod, container = pod_of(folder, file)
        assert container["args"] == flags
        assert set(config["data"]) == {Path(flag).name for flag in flags if "/deployment/" in flag}
        for name, text in config["data"].items():
            assert text == (folder / name).read_text()
        assert container["resources"]["limits"] == {**limits, **more}
        mounts, volumes = container["volumeMounts"], pod["volumes"]
        assert {item["name"] for item in mounts} == {item["name"] for item in volumes}
        spec = deployment["spec"]
        labels = spec["template"]["metadata"]["labels"]
        assert service["spec"]["selector"] == spec["selector"]["matchLabels"] == labels
        rolling = spec["strategy"]["rollingUpdate"]
        assert rolling == {"maxSurge": surge, "maxUnavailable": 1 - surge}


def test_a_pod_starts_when_every_model_answers_and_ends_when_all_is_answered(folder):
    pod, container = pod_of(folder)
    *_, command = container["startupProbe"]["exec"]["command"]
    assert command == health_command(["birds", "fish"])
    # A request would wait in the queue of an overloaded server, on all replicas at once.
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["tcpSocket"] == {"port": 8500}
    # Not by the image's script, which passes no signal on, and not as process 1, for which a
    # signal without a handler is nothing.
    assert container["command"] == ["tensorflow_model_server"]
    assert pod["shareProcessNamespace"] is True
    _, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    # A request may take 30 seconds.
    assert 30 < int(seconds) < pod["terminationGracePeriodSeconds"]


def test_no_name_or_path_breaks_a_file(tmp_path):
    models = tmp_path / 'it\'s "quoted" \\ # ü 狗'
    add_version(models, "birds", 1)
    write_deployment(models, tmp_path / "deployment")
    (compose,) = yaml_of(tmp_path / "deployment", "compose.yaml")
    expected = f"${{MODELS:-{models.resolve()}}}:/models:ro"
    assert compose["services"]["serving"]["volumes"][0] == expected
    host = read_config(tmp_path / "deployment" / HOST_CONFIG_FILE).model_config_list.config[0]
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
    write_deployment(models, folder)
    tried = {"stable": 1, "canary": 2}
    assert deployed_labels(folder) == {"birds": tried, "fish": {"stable": 1, "canary": 1}}

    assert promote(models, folder, "birds") == {"stable": 2, "canary": 2, "previous": 1}
    # Written again, the deployment keeps what the operator chose.
    add_version(models, "birds", 3)
    write_deployment(models, folder)
    assert deployed_labels(folder)["birds"] == {"stable": 2, "canary": 3, "previous": 1}

    assert rollback(models, folder, "birds") == {"stable": 1, "canary": 3}
    assert deployed_labels(folder)["fish"] == {"stable": 1, "canary": 1}
    for name in ("models.config", HOST_CONFIG_FILE):
        birds, _ = read_config(folder / name).model_config_list.config
        assert dict(birds.version_labels) == {"stable": 1, "canary": 3}
    config, *_ = yaml_of(folder, "kubernetes.yaml")
    assert config["data"]["models.config"] == (folder / "models.config").read_text()


def test_labels_stay_where_they_are_if_the_newest_is_not_to_be_tried(models, folder):
    add_version(models, "birds", 2)
    add_version(models, "cats", 4)
    write_deployment(models, folder, try_newest=False)
    assert deployed_labels(folder) == {
        "birds": {"stable": 1, "canary": 1},
        "cats": {"stable": 4, "canary": 4},
        "fish": {"stable": 1, "canary": 1},
    }


@pytest.mark.parametrize("spoil", [damage, shutil.rmtree])
def test_a_bad_version_that_is_lost_leaves_the_one_before_stable(models, folder, spoil):
    add_version(models, "birds", 2)
    write_deployment(models, folder)
    promote(models, folder, "birds")
    spoil(models / "birds" / "2")
    other = shutil.copytree(folder, folder.with_name("other"))
    # By a rollback, and by writing the deployment again.
    assert rollback(models, folder, "birds") == {"stable": 1, "canary": 1}
    write_deployment(models, other)
    assert deployed_labels(other)["birds"] == {"stable": 1, "canary": 1}


def test_another_model_that_is_damaged_stops_nobody(models, folder):
    for number in (2, 3):
        for name in ("birds", "fish"):
            add_version(models, name, number)
        write_deployment(models, folder)
        if number == 2:
            promote(models, folder, "birds")
            promote(models, folder, "fish")
    for lost, left in {
        # Of version 2, which is stable, and of what is tried, version 3.
        "3": {"stable": 2, "canary": 2, "previous": 1},
        "2": {"stable": 1, "canary": 3},
        "1": {"stable": 2, "canary": 3},
        # A folder that is away as a whole may be back; the server still has the versions.
        "": {"stable": 2, "canary": 3, "previous": 1},
    }.items():
        case = models.with_name(f"case{lost}")
        shutil.copytree(models, case / "models")
        shutil.copytree(folder, case / "deployment")
        shutil.rmtree(case / "models" / "fish" / lost)
        arguments = case / "models", case / "deployment", "birds"
        assert promote(*arguments) == {"stable": 3, "canary": 3, "previous": 2}
        assert deployed_labels(case / "deployment")["fish"] == left
        assert rollback(*arguments) == {"stable": 2, "canary": 2}


def test_what_is_no_version_is_passed_over(models, folder):
    # TF Serving counts in int64; `export` writes no leading zero.
    for name in ("9223372036854775808", "007"):
        add_version(models, "birds", name)
    (models / "birds" / "9").touch()
    (models / "birds" / "8").mkdir()
    write_deployment(models, folder)
    assert deployed_labels(folder)["birds"] == {"stable": 1, "canary": 1}


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


# Commands that are killed before a file is put in its place, or after all: "promote-3" before the
# fourth file.
KILLED = """
import os, signal, shutil, sys
from pathlib import Path
from tf_dpce import files
from tf_dpce.serving.deployment import promote, rollback
models, start = Path(sys.argv[1]), Path(sys.argv[2])
replace = os.replace
def killed(work, folder, count):
    def counted(source, target):
        nonlocal count
        count -= 1
        if count < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
    child = os.fork()
    if not child:
        files.os.replace = counted
        work(models, folder, "birds")
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
for case in sys.argv[3:]:
    work, count = case.split("-")
    folder = Path(shutil.copytree(start, f"{start}-{case}"))
    if work == "rollback":
        promote(models, folder, "birds")
    killed(globals()[work], folder, int(count))
"""


@pytest.mark.process
def test_a_label_has_moved_or_not_whenever_its_command_is_killed(models, folder, project_root):
    add_version(models, "birds", 2)
    files = write_deployment(models, folder)
    moves = {"promote": (promote, 1, 2), "rollback": (rollback, 2, 1)}
    counts = (0, len(files) // 2, len(files) - 1, len(files))
    cases = [(work, count) for work in moves for count in counts]
    command = [sys.executable, "-c", KILLED, str(models), str(folder)]
    command += [f"{work}-{count}" for work, count in cases]
    subprocess.run(command, cwd=project_root, check=True)
    for name, count in cases:
        work, before, after = moves[name]
        left = folder.with_name(f"{folder.name}-{name}-{count}")
        stable = deployed_labels(left)["birds"]["stable"]
        assert stable == (after if count == len(files) else before), (name, count)
        assert len(yaml_of(left, "kubernetes.yaml")) == 3
        if stable == before:
            work(models, left, "birds")
        assert deployed_labels(left)["birds"]["stable"] == after
        # What was left aside after the last one goes with the next command.
        assert len([path for path in left.rglob("*") if path.is_file()]) == len(files)


# --- a server that reads it -----------------------------------------------------------------------


def test_a_running_server_follows_promote_and_rollback(toy, tmp_path):
    models, folder = tmp_path / "saved_models", tmp_path / "deployment"
    shutil.copytree(toy, models / NAME)
    with running("development", models, folder) as served:
        probe = ["bash", "-c", health_command([NAME], served.rest_port)]
        assert subprocess.run(probe).returncode == 0
        # One model that does not answer is enough to fail.
        for names in ([NAME, "cats"], ["cats", NAME]):
            lacking = ["bash", "-c", health_command(names, served.rest_port)]
            assert subprocess.run(lacking).returncode != 0

        def stable() -> int:
            code, answer = ask(served.rest_port, f"/v1/models/{NAME}/labels/stable/metadata")
            assert code == 200, "the label answers at every moment"
            return int(answer["model_spec"]["version"])

        publish_again(models)
        write_deployment(models, folder)
        assert stable() == 1
        promote(models, folder, NAME)
        wait_until(lambda: stable() == 2)
        rollback(models, folder, NAME)
        wait_until(lambda: stable() == 1)
    assert subprocess.run(probe, capture_output=True).returncode != 0
