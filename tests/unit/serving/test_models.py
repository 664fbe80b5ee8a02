"""Versions that come and go while requests use them, with stand-ins for what is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tf_dpce.serving import models as models_module
from tf_dpce.serving.models import Models

NAME = "tiny"


class StandIn:
    """A version that notes whether it was closed."""

    def __init__(self, name: str, number: int, folder: Path) -> None:
        self.number = number
        self.closed = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "1").mkdir()
    return tmp_path


@pytest.fixture
def models(folder, monkeypatch) -> Models:
    """The latest version of one model; there is version 1."""
    monkeypatch.setattr(models_module, "Version", StandIn)
    config = ModelServerConfig()
    config.model_config_list.config.add(name=NAME, base_path=str(folder))
    loaded = Models()
    loaded.configure(config)
    loaded.refresh()
    return loaded


def test_a_version_is_freed_when_the_last_request_that_uses_it_has_ended(models, folder):
    spec = ModelSpec(name=NAME)
    with models.use(spec) as first:
        with models.use(spec) as same:
            assert first is same and first.number == 1
            (folder / "2").mkdir()
            models.refresh()
            # It is gone for who comes now, and stays for who is here.
            with models.use(spec) as second:
                assert second.number == 2
            assert (first.closed, second.closed) == (False, False)
        assert not first.closed
    assert (first.closed, second.closed) == (True, False)


def test_a_version_that_nobody_uses_is_freed_at_once(models, folder):
    with models.use(ModelSpec(name=NAME)) as first:
        pass
    assert not first.closed
    (folder / "2").mkdir()
    models.refresh()
    assert first.closed


def test_a_request_that_fails_gives_its_version_back(models, folder):
    with pytest.raises(OSError), models.use(ModelSpec(name=NAME)) as first:
        (folder / "2").mkdir()
        models.refresh()
        raise OSError
    assert first.closed


def test_all_versions_go_at_the_end(models):
    with models.use(ModelSpec(name=NAME)) as first:
        models.close()
        assert not first.closed
    assert first.closed
