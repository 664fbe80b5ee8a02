"""Versions that fail to load, and when a version goes."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tests.unit.serving.servers import NAME, fails
from tf_dpce.errors import shorten
from tf_dpce.serving import servable_manager
from tf_dpce.serving.servable_manager import AVAILABLE, END, LOADING, Servable, ServableManager


class StandIn:
    """A version that cannot be loaded while its folder has a file `damaged`."""

    replaced = False

    def __init__(self, name: str, number: int, folder: Path) -> None:
        self.number, self.folder = number, folder
        self.state, self.error = LOADING, ""

    def load(self) -> None:
        damaged = (self.folder / "damaged").exists()
        self.state, self.error = (END, "it is damaged") if damaged else (AVAILABLE, "")

    def is_replaced(self) -> bool:
        return self.replaced


def test_a_version_stays_until_another_one_answers(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "tf_dpce")
    monkeypatch.setattr(servable_manager, "Servable", StandIn)
    config, models, spec = ModelServerConfig(), ServableManager(), ModelSpec(name=NAME)
    config.model_config_list.config.add(name=NAME, base_path=str(tmp_path))
    (tmp_path / "1").mkdir()
    models.configure(config)
    models.refresh()
    (tmp_path / "1").rename(tmp_path / "2")
    (tmp_path / "2" / "damaged").touch()
    for _ in range(3):
        models.refresh()
        found = models.status(spec).model_version_status
        assert [version.version for version in found] == [2, 1]
        assert found[0].status.error_message == "it is damaged"
        assert models.find(spec).number == 1
    (tmp_path / "2" / "damaged").unlink()
    monkeypatch.setattr(StandIn, "replaced", True)
    models.refresh()
    assert [version.version for version in models.status(spec).model_version_status] == [2]
    # It is tried again only after other files have come in its place.
    changes = ("1 is available", "2 cannot be loaded: it is damaged", "2 is available", "1 is gone")
    assert caplog.messages == [f"{NAME} version {change}" for change in changes]


def test_a_configuration_that_tf_serving_refuses_changes_nothing(tmp_path, caplog):
    config, models = ModelServerConfig(), ServableManager()
    config.model_config_list.config.add(name=NAME, base_path=str(tmp_path / "none"))
    models.configure(config)
    for _ in range(2):
        models.refresh()
    # Of a folder without a model it warns, once.
    assert [shorten(tmp_path / "none") in message for message in caplog.messages] == [True]
    for name, path in ((NAME, str(tmp_path)), ("other", "models/other"), ("other", "")):
        wrong = ModelServerConfig()
        wrong.CopyFrom(config)
        wrong.model_config_list.config.add(name=name, base_path=path)
        with fails("INVALID_ARGUMENT"):
            models.configure(wrong)
    assert models._config == config


def test_a_version_is_freed_when_the_last_request_that_uses_it_has_ended(toy):
    servable = Servable(NAME, 1, toy / "1")
    servable.load()
    session = weakref.ref(servable._model._session)
    assert servable.predict("encode_text", {"text": np.array([b"a dog"], object)})["status"] == [0]
    del servable
    assert session() is None
