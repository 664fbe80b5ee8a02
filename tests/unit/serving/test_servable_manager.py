"""Which versions are loaded, who gets which, and when they go; versions are stand-ins."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tests.unit.serving.servers import NAME, fails
from tf_dpce.serving import servable_manager
from tf_dpce.serving.servable import AVAILABLE, END, LOADING
from tf_dpce.serving.servable_manager import ServableManager

SPEC = ModelSpec(name=NAME)


class StandIn:
    """A version that cannot be loaded while its folder has a file `damaged`."""

    def __init__(self, name: str, number: int, folder: Path) -> None:
        self.number, self.folder = number, folder
        self.state, self.error, self.users = LOADING, "", 0
        self.closed = self.replaced = False

    def load(self) -> None:
        damaged = (self.folder / "damaged").exists()
        self.state, self.error = (END, "it is damaged") if damaged else (AVAILABLE, "")

    def is_replaced(self) -> bool:
        return self.replaced

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "1").mkdir()
    return tmp_path


def config(folder: Path, policy: str = "latest {}", **labels: int) -> ModelServerConfig:
    """Returns a configuration of one model."""
    parsed = ModelServerConfig()
    model = parsed.model_config_list.config.add(name=NAME, base_path=str(folder))
    text_format.Parse(policy, model.model_version_policy)
    model.version_labels.update(labels)
    return parsed


@pytest.fixture
def models(folder, monkeypatch) -> ServableManager:
    """The latest version of one model; there is version 1."""
    monkeypatch.setattr(servable_manager, "Servable", StandIn)
    loaded = ServableManager()
    loaded.configure(config(folder))
    loaded.refresh()
    return loaded


def states(models: ServableManager) -> dict[int, str]:
    return {servable.number: servable.state for servable in models.states(SPEC)}


def number(models: ServableManager, **spec: str) -> int:
    """The version that a request gets."""
    with models.use(ModelSpec(name=NAME, **spec)) as servable:
        return servable.number


# --- which versions are loaded --------------------------------------------------------------------


def test_versions_are_those_of_the_policy(models, folder):
    for name in "23":
        (folder / name).mkdir()
    for policy, expected in {
        "latest {}": [3],
        "latest { num_versions: 2 }": [3, 2],
        "specific { versions: 1 versions: 3 versions: 9 }": [3, 1],
        "all {}": [3, 2, 1],
    }.items():
        models.configure(config(folder, policy))
        models.refresh()
        assert states(models) == dict.fromkeys(expected, AVAILABLE), policy


def test_the_latest_version_replaces_the_one_before(models, folder, caplog):
    caplog.set_level("INFO", "tf_dpce")
    (folder / "2").mkdir()
    models.refresh()
    assert states(models) == {2: AVAILABLE}
    assert caplog.messages == [f"{NAME} version 2 is available", f"{NAME} version 1 is gone"]


def test_a_version_that_does_not_load_leaves_the_one_before(models, folder, caplog):
    caplog.set_level("INFO", "tf_dpce")
    (folder / "2").mkdir()
    (folder / "2" / "damaged").touch()
    for _ in range(3):
        models.refresh()
        assert states(models) == {2: END, 1: AVAILABLE}
        assert number(models) == 1 and models.unavailable() == {}
    # It is not tried again before other files have come in its place.
    assert len([line for line in caplog.messages if "it is damaged" in line]) == 1
    (folder / "2" / "damaged").unlink()
    models.states(SPEC)[0].replaced = True
    models.refresh()
    assert states(models) == {2: AVAILABLE}


def test_a_model_without_a_version_is_unavailable(models, folder):
    (folder / "1").rmdir()
    models.refresh()
    assert models.unavailable() == {NAME: ""}
    for call in (lambda: number(models), lambda: models.states(SPEC)):
        with fails("NOT_FOUND"):
            call()
    (folder / "4").mkdir()
    (folder / "4" / "damaged").touch()
    models.refresh()
    assert models.unavailable() == {NAME: "version 4: it is damaged"}


def test_a_label_moves_only_to_a_version_that_is_available(models, folder):
    models.configure(config(folder, "all {}", stable=1))
    assert number(models, version_label="stable") == 1
    with fails("FAILED_PRECONDITION"):
        models.configure(config(folder, "all {}", stable=2))
    assert number(models, version_label="stable") == 1
    (folder / "2").mkdir()
    models.refresh()
    models.configure(config(folder, "all {}", stable=2))
    assert number(models, version_label="stable") == 2
    with fails("INVALID_ARGUMENT"):
        number(models, version_label="canary")


# --- when they go ---------------------------------------------------------------------------------


def test_a_version_is_freed_when_the_last_request_that_uses_it_has_ended(models, folder):
    with models.use(SPEC) as first:
        with models.use(SPEC) as same:
            assert first is same and first.number == 1
            (folder / "2").mkdir()
            models.refresh()
            # It is gone for who comes now, and stays for who is here.
            with models.use(SPEC) as second:
                assert second.number == 2
            assert (first.closed, second.closed) == (False, False)
        assert not first.closed
    assert (first.closed, second.closed) == (True, False)


def test_a_version_that_nobody_uses_is_freed_at_once(models, folder):
    with models.use(SPEC) as first:
        pass
    assert not first.closed
    (folder / "2").mkdir()
    models.refresh()
    assert first.closed


def test_a_request_that_fails_gives_its_version_back(models, folder):
    with pytest.raises(OSError), models.use(SPEC) as first:
        (folder / "2").mkdir()
        models.refresh()
        raise OSError
    assert first.closed


def test_all_versions_go_at_the_end(models):
    with models.use(SPEC) as first:
        models.close()
        assert not first.closed
    assert first.closed
