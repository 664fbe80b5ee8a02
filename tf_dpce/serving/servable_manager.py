"""The models of a development server: versions that come, answer, and go without a gap."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.file_system_storage_path_source_pb2 import (
    FileSystemStoragePathSourceConfig,
)
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tf_dpce.export.versions import version_numbers
from tf_dpce.logging import logger
from tf_dpce.serving.errors import ServingError
from tf_dpce.serving.servable import AVAILABLE, END, Servable

Policy = FileSystemStoragePathSourceConfig.ServableVersionPolicy


class ServableManager:
    """Loads versions from disk according to a configuration.

    A version is taken out only after another one answers, and is freed when the last request that
    uses it has ended. Any number of threads may ask while one calls `refresh`.
    """

    def __init__(self) -> None:
        self._config = ModelServerConfig()
        self._servables: dict[str, dict[int, Servable]] = {}
        self._lock = threading.Lock()

    def configure(self, config: ModelServerConfig) -> None:
        """Takes a configuration over; `refresh` then loads what it names.

        Raises:
            ServingError: FAILED_PRECONDITION, a label that is in use would move to a version that
                is not available; the configuration before stays.
        """
        with self._lock:
            for model in config.model_config_list.config:
                before = self._labels(model.name)
                available = self._available(model.name)
                for label, number in model.version_labels.items():
                    if before.get(label, number) != number and number not in available:
                        raise ServingError(
                            "FAILED_PRECONDITION",
                            f"Request to assign label to version {number} of model {model.name}, "
                            "which is not currently available for inference",
                        )
            self._config = config

    def refresh(self) -> None:
        """Loads versions that are new on disk, and drops those that are no longer wanted."""
        wanted = {}
        for model in self._config.model_config_list.config:
            folder = Path(model.base_path)
            numbers = version_numbers(folder) if folder.is_dir() else []
            wanted[model.name] = _choose(model.model_version_policy, numbers)
            for number in wanted[model.name]:
                self._load(model.name, number, folder / str(number))
        for name in list(self._servables):
            self._drop(name, wanted.get(name, []))

    @contextmanager
    def use(self, spec: ModelSpec) -> Iterator[Servable]:
        """Yields the version that a request asks for, which stays until the block ends.

        Raises:
            ServingError: INVALID_ARGUMENT without a name or for an unknown label, NOT_FOUND if
                there is no such model or version.
        """
        with self._lock:
            servable = self._find(spec)
            servable.users += 1
        try:
            yield servable
        finally:
            with self._lock:
                servable.users -= 1
                unused = servable.state == END and not servable.users
            if unused:
                servable.close()

    def states(self, spec: ModelSpec) -> list[Servable]:
        """Returns the versions of a model, the largest first, or the one that is asked for.

        Raises:
            ServingError: NOT_FOUND, there is none.
        """
        with self._lock:
            servables = dict(sorted(self._servables.get(spec.name, {}).items(), reverse=True))
        number = spec.version.value
        if not spec.HasField("version"):
            found, message = [*servables.values()], f"any versions of model {spec.name}"
        else:
            found = [servables[number]] if number in servables else []
            message = f"version {number} of model {spec.name}"
        if not found:
            raise ServingError("NOT_FOUND", f"Could not find {message}")
        return found

    def unavailable(self) -> dict[str, str]:
        """Returns the configured models without an available version.

        Each comes with the error of its newest version if all failed, else with "".
        """
        with self._lock:
            names = [model.name for model in self._config.model_config_list.config]
            return {name: self._error(name) for name in names if not self._available(name)}

    def close(self) -> None:
        """Drops every version."""
        self._config = ModelServerConfig()
        self.refresh()

    def _load(self, name: str, number: int, folder: Path) -> None:
        before = self._servables.get(name, {}).get(number)
        # A version that failed is tried again only after its files were replaced.
        if before and not (before.error and before.is_replaced()):
            return
        servable = Servable(name, number, folder)
        with self._lock:
            self._servables.setdefault(name, {})[number] = servable
        servable.load()
        state = f"cannot be loaded: {servable.error}" if servable.error else "is available"
        logger.info(f"{name} version {number} {state}")

    def _drop(self, name: str, wanted: list[int]) -> None:
        with self._lock:
            versions = self._servables[name]
            if wanted and not any(number in wanted for number in self._available(name)):
                return
            dropped = [versions.pop(number) for number in set(versions) - set(wanted)]
            for servable in dropped:
                servable.state = END
            unused = [servable for servable in dropped if not servable.users]
            if not versions:
                del self._servables[name]
        for servable in unused:
            servable.close()
        for servable in dropped:
            logger.info(f"{name} version {servable.number} is gone")

    def _find(self, spec: ModelSpec) -> Servable:
        if not spec.name:
            raise ServingError("INVALID_ARGUMENT", "ModelSpec has no name specified.")
        available, number = self._available(spec.name), self._number(spec)
        if number is None and available:
            return available[max(available)]
        if number in available:
            return available[number]
        asked = f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"
        raise ServingError("NOT_FOUND", f"Servable not found for request: {asked}")

    def _number(self, spec: ModelSpec) -> int | None:
        if not spec.version_label:
            return spec.version.value if spec.HasField("version") else None
        labels = self._labels(spec.name)
        if spec.version_label not in labels:
            message = f"Unrecognized servable version label: {spec.version_label}"
            raise ServingError("INVALID_ARGUMENT", message)
        return labels[spec.version_label]

    def _labels(self, name: str) -> dict[str, int]:
        models = self._config.model_config_list.config
        return next((dict(model.version_labels) for model in models if model.name == name), {})

    def _available(self, name: str) -> dict[int, Servable]:
        versions = self._servables.get(name, {})
        return {number: found for number, found in versions.items() if found.state == AVAILABLE}

    def _error(self, name: str) -> str:
        versions = self._servables.get(name, {})
        if not versions or not all(servable.error for servable in versions.values()):
            return ""
        return f"version {max(versions)}: {versions[max(versions)].error}"


def _choose(policy: Policy, numbers: list[int]) -> list[int]:
    """Returns which of the versions on disk, in rising order, a policy wants."""
    if policy.HasField("all"):
        return numbers
    if policy.HasField("specific"):
        return [number for number in numbers if number in policy.specific.versions]
    return numbers[-(policy.latest.num_versions or 1) :]
