"""`models.config`, TF Serving's list of models, read and written as a text proto."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tf_dpce.errors import UserError


def read_config(path: Path) -> ModelServerConfig:
    """Returns what a `models.config` holds.

    Raises:
        UserError: there is none, or it cannot be parsed.
    """
    try:
        return text_format.Parse(path.read_text(), ModelServerConfig())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: make it with `serve --write`") from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no models.config ({error}): write it again") from None
