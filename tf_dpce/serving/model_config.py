"""`models.config`, TF Serving's list of models, read and written as a text proto."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tf_dpce.errors import UserError

# By a model's name: by a label, the version that carries it.
Labels = dict[str, dict[str, int]]


def read_config(path: Path) -> ModelServerConfig:
    """Returns what a `models.config` holds.

    Raises:
        UserError: there is none, or it cannot be parsed.
    """
    try:
        return text_format.Parse(path.read_text(), ModelServerConfig())
    except FileNotFoundError:
        message = f"{path} does not exist: make it with `serve --write`"
        raise UserError("serving.no_deployment", message, path) from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        message = f"{path} is no models.config ({error}): write it again"
        raise UserError("serving.config", message, path) from None


def config_text(labels: Labels, root: Path | str) -> str:
    """Composes a `models.config`.

    Every version on disk is loaded: TF Serving moves a label only to a version that answers, so
    what may be labelled next has to be there before.

    Args:
        labels: the labels of each model, by its name.
        root: the folder of the models, where the server sees it.
    """
    config = ModelServerConfig()
    for name, versions in sorted(labels.items()):
        model = config.model_config_list.config.add(
            name=name, base_path=f"{root}/{name}", model_platform="tensorflow"
        )
        model.model_version_policy.all.SetInParent()
        model.version_labels.update(versions)
    return text_format.MessageToString(config)


def config_labels(config: ModelServerConfig) -> Labels:
    """Returns the labels of each model, by its name."""
    models = config.model_config_list.config
    return {model.name: dict(model.version_labels) for model in models}
