"""The models of a development server: versions that come, answer, and go without a gap."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse, ModelVersionStatus
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tf_dpce.errors import shorten
from tf_dpce.export.golden import WARMUP_FILE, read_warmup
from tf_dpce.export.session_process import SessionModel, one_line
from tf_dpce.export.versions import version_numbers
from tf_dpce.logging import logger
from tf_dpce.serving.errors import STATUSES, ServingError

LOADING = "LOADING"
AVAILABLE = "AVAILABLE"
END = "END"

# The only metadata of a model that there is.
SIGNATURE_FIELD = "signature_def"

# What a request to TF Serving has at most, if it batches.
MOST_ROWS = 1024


class Servable:
    """A version of a model that runs in a Session, like in TF Serving.

    Args:
        name: name of the model.
        number: number of the version.
        folder: the exported version.

    Attributes:
        state: LOADING, AVAILABLE, or END if it could not be loaded.
        error: why it could not be loaded, or "".
        signatures: if it is AVAILABLE, its signatures by name.
    """

    def __init__(self, name: str, number: int, folder: Path) -> None:
        self.name = name
        self.number = number
        self.state = LOADING
        self.error = ""
        self._folder = folder
        self._files = _files(folder)

    def load(self) -> None:
        """Opens the Session and runs the warm-up requests; after a failure `error` says why."""
        try:
            model = SessionModel(self._folder)
            if (self._folder / WARMUP_FILE).exists():
                for signature, inputs in read_warmup(self._folder):
                    model.run(signature, inputs)
        except Exception as error:  # a damaged version raises whatever TensorFlow trips over
            self.state, self.error = END, one_line(error)
        else:
            self._model, self.signatures = model, dict(model.meta_graph.signature_def)
            self.state = AVAILABLE

    def is_replaced(self) -> bool:
        """Returns whether other files have come in the place of those that were loaded."""
        return _files(self._folder) != self._files

    def input_name(self, signature: str) -> str:
        """Returns the name of the input of a signature.

        Raises:
            ServingError: FAILED_PRECONDITION, there is no such signature.
        """
        # The signature that initialises a model takes nothing.
        if signature not in self.signatures or not self.signatures[signature].inputs:
            message = f'Serving signature key "{shorten(signature)}" not found.'
            raise ServingError("FAILED_PRECONDITION", message)
        return next(iter(self.signatures[signature].inputs))

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the outputs of a signature by name, given strings `[B]` by the input's name.

        Raises:
            ServingError: FAILED_PRECONDITION or INVALID_ARGUMENT if the request does not fit the
                signature, else the status that TensorFlow gives.
        """
        key = self.input_name(signature)
        if list(inputs) != [key]:
            raise ServingError("INVALID_ARGUMENT", f"the inputs of {signature} are not {key} alone")
        # With batching TF Serving leaves a request without rows unanswered, refuses one with more
        # than these, and fails all that share a batch with strings of another rank.
        shape = inputs[key].shape
        if len(shape) != 1 or not 1 <= shape[0] <= MOST_ROWS:
            message = f"{key} takes 1 to {MOST_ROWS} strings [B], not those of the shape {shape}"
            raise ServingError("INVALID_ARGUMENT", message)
        try:
            return self._model.run(signature, inputs)
        except tf.errors.OpError as error:
            raise ServingError.of_number(error.error_code, error.message) from None
        except ValueError as error:
            raise ServingError("INVALID_ARGUMENT", shorten(error)) from None


class ServableManager:
    """Loads the models that a configuration names, with all versions that are on disk.

    That is the policy of every `models.config` of this project; others are not followed. A version
    is taken out only after another one answers, and Python frees it when the last request that uses
    it has ended. Any number of threads may ask while one calls `refresh`: the versions of a model
    are a dict that is replaced, never changed.
    """

    def __init__(self) -> None:
        self._config = ModelServerConfig()
        self._servables: dict[str, dict[int, Servable]] = {}
        self._empty: set[Path] = set()

    def configure(self, config: ModelServerConfig) -> None:
        """Takes a configuration over; `refresh` then loads what it names.

        Raises:
            ServingError: INVALID_ARGUMENT, a model is named twice or its path is not absolute;
                FAILED_PRECONDITION, a label that is in use would move to a version that is not
                available. The configuration before stays.
        """
        listed = config.model_config_list.config
        for model in listed:
            twice = [other.name for other in listed].count(model.name) > 1
            if twice or not Path(model.base_path).is_absolute():
                message = f"model {shorten(model.name)} is named twice, or its path is not absolute"
                raise ServingError("INVALID_ARGUMENT", message)
            before, available = self._labels(model.name), self._available(model.name)
            for label, number in model.version_labels.items():
                if before.get(label, number) != number and number not in available:
                    raise ServingError(
                        "FAILED_PRECONDITION",
                        f"Request to assign label to version {number} of model "
                        f"{shorten(model.name)}, which is not currently available for inference",
                    )
        self._config = config

    def refresh(self) -> None:
        """Loads versions that are new on disk, and drops those that are no longer wanted."""
        wanted, empty = {}, self._empty
        self._empty = set()
        for model in self._config.model_config_list.config:
            folder = Path(model.base_path)
            wanted[model.name] = version_numbers(folder)
            if not wanted[model.name]:
                self._empty.add(folder)
            for number in wanted[model.name]:
                self._load(model.name, number, folder / str(number))
        for folder in self._empty - empty:
            logger.warning(f"{shorten(folder)} has no version of a model")
        for name in list(self._servables):
            self._drop(name, wanted.get(name, []))

    def find(self, spec: ModelSpec) -> Servable:
        """Returns the version that a request asks for.

        Raises:
            ServingError: INVALID_ARGUMENT without a name or for an unknown label, NOT_FOUND if
                there is no such model or version.
        """
        if not spec.name:
            raise ServingError("INVALID_ARGUMENT", "ModelSpec has no name specified.")
        available, number = self._available(spec.name), self._number(spec)
        if number is None and available:
            return available[max(available)]
        if number in available:
            return available[number]
        name = shorten(spec.name)
        asked = f"Latest({name})" if number is None else f"Specific({name}, {number})"
        raise ServingError("NOT_FOUND", f"Servable not found for request: {asked}")

    def status(self, spec: ModelSpec) -> GetModelStatusResponse:
        """Returns the states of the versions of a model, or of the one that is asked for.

        Raises:
            ServingError: NOT_FOUND, there is none.
        """
        servables, number = self._servables.get(spec.name, {}), spec.version.value
        if not spec.HasField("version"):
            found, message = sorted(servables, reverse=True), "any versions"
        else:
            found, message = [number] if number in servables else [], f"version {number}"
        if not found:
            message = f"Could not find {message} of model {shorten(spec.name)}"
            raise ServingError("NOT_FOUND", message)
        response = GetModelStatusResponse()
        for servable in (servables[number] for number in found):
            state = ModelVersionStatus.State.Value(servable.state)
            status = response.model_version_status.add(version=servable.number, state=state).status
            status.error_code = STATUSES["UNKNOWN"][0] if servable.error else 0
            status.error_message = servable.error
        return response

    def metadata(self, spec: ModelSpec) -> GetModelMetadataResponse:
        """Returns the signatures of the version that is asked for.

        Raises:
            ServingError: see `find`.
        """
        servable = self.find(spec)
        response, signatures = GetModelMetadataResponse(), SignatureDefMap()
        response.model_spec.name = servable.name
        response.model_spec.version.value = servable.number
        for name, signature in servable.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        response.metadata[SIGNATURE_FIELD].Pack(signatures)
        return response

    def _load(self, name: str, number: int, folder: Path) -> None:
        versions = self._servables.get(name, {})
        # A version that failed is tried again only after its files were replaced.
        if (before := versions.get(number)) and not (before.error and before.is_replaced()):
            return
        servable = Servable(name, number, folder)
        self._servables[name] = {**versions, number: servable}
        servable.load()
        if servable.error:
            logger.warning(f"{name} version {number} cannot be loaded: {shorten(servable.error)}")
        else:
            logger.info(f"{name} version {number} is available")

    def _drop(self, name: str, wanted: list[int]) -> None:
        versions = self._servables[name]
        if wanted and not any(number in wanted for number in self._available(name)):
            return
        self._servables[name] = {n: found for n, found in versions.items() if n in wanted}
        if not wanted:
            del self._servables[name]
        for number in sorted(versions.keys() - set(wanted)):
            logger.info(f"{name} version {number} is gone")

    def _number(self, spec: ModelSpec) -> int | None:
        if not spec.version_label:
            return spec.version.value if spec.HasField("version") else None
        labels = self._labels(spec.name)
        if spec.version_label not in labels:
            message = f"Unrecognized servable version label: {shorten(spec.version_label)}"
            raise ServingError("INVALID_ARGUMENT", message)
        return labels[spec.version_label]

    def _labels(self, name: str) -> dict[str, int]:
        models = self._config.model_config_list.config
        return next((dict(model.version_labels) for model in models if model.name == name), {})

    def _available(self, name: str) -> dict[int, Servable]:
        versions = self._servables.get(name, {})
        return {number: found for number, found in versions.items() if found.state == AVAILABLE}


def _files(folder: Path) -> set[tuple]:
    """Returns what distinguishes the files of a version from any that replace them."""
    found = set()
    for path in (folder, *folder.rglob("*")):
        # A file may go while it is looked at; the next look finds what came.
        with suppress(OSError):
            stat = path.stat()
            found.add((path, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return found
