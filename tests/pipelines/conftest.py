"""One tiny exported model for the verbs that embed and search."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_export(tmp_path_factory) -> Path:
    """The folder NAME of a model with one version; nobody writes to it."""
    from tests.export.tiny import WORDS, tiny_model
    from tf_dpce.export.publish import export_model
    from tf_dpce.preprocessing.text import CaptionEncoder

    folder = tmp_path_factory.mktemp("saved_models") / "tiny"
    words = CaptionEncoder(WORDS, max_length=6, lowercase=True)
    export_model(tiny_model(), words, folder, {"data": "drawn", "seed": 0})
    return folder
