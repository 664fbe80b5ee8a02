"""Loads a model to embed with, in TensorFlow or in another runtime."""

from __future__ import annotations

from pathlib import Path

from tf_dpce.errors import UserError
from tf_dpce.export.encoder import Encoder, load_in_tensorflow
from tf_dpce.export.versions import find_version, is_run
from tf_dpce.runtimes import AnyRuntime
from tf_dpce.runtimes.encoder import RuntimeEncoder
from tf_dpce.runtimes.engines import check_tensorflow


def load(path: str | Path, runtime: AnyRuntime = "tensorflow") -> Encoder:
    """Loads a trained model, to embed images and captions.

    Args:
        path: an exported version (NAME/INTEGER); an exported model (NAME), whose newest version is
            used; or, for TensorFlow, a run folder, whose best weights are used.
        runtime: what computes. "onnx", "openvino" and "litert" need neither TensorFlow nor Keras,
            but a version that was exported for them.

    Returns:
        An encoder with the methods `encode_images`, `encode_texts`, `encode_with_status` and
        `similarity`.

    Raises:
        UserError: there is no model, it cannot be loaded, or the runtime is not installed.

    Example:
        >>> encoder = tf_dpce.load("saved_models/flickr8k")
        >>> encoder.encode_texts(["Two dogs play in the snow."]).shape == (1, encoder.dimension)
        True
    """
    if runtime == "tensorflow":
        check_tensorflow("a model without --runtime")
        return load_in_tensorflow(path)
    folder = Path(path)
    if is_run(folder):
        message = f"{folder} is a run: export it with --format {runtime} to use it there"
        raise UserError("runtimes.missing", message, folder)
    return RuntimeEncoder(find_version(folder), runtime)
