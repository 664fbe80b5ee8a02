"""The models of a development server: versions that come, answer, and go without a gap."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.file_system_storage_path_source_pb2 import (
    FileSystemStoragePathSourceConfig,
)
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tf_dpce.export.answering import one_line
from tf_dpce.export.versions import version_numbers
from tf_dpce.serving.errors import ServingError
from tf_dpce.serving.version import Version

AVAILABLE = "AVAILABLE"
LOADING = "LOADING"
END = "END"

Policy = FileSystemStoragePathSourceConfig.ServableVersionPolicy


@dataclass
class Held:
    """A version, and how it stands with it.

    Attributes:
        state: LOADING, AVAILABLE or END.
        version: None while it loads, and where it failed.
        error: why it failed, or "".
        files: what it was loaded from, to be told from what may come in its place.
        users: requests that are being answered.
    """

    state: str = LOADING
    version: Version | None = None
    error: str = ""
    files: frozenset = frozenset()
    users: int = 0


class Models:
    """Versions on disk, loaded as a configuration wants them.

    A version is taken out only when another one answers, and is freed when the last request that
    uses it has ended. Any number of threads may ask while one calls `refresh`.

    Args:
        report: called with one line about each version that comes or goes.
    """

    def __init__(self, report: Callable[[str], None] = lambda line: None) -> None:
        self._report = report
        self._config = ModelServerConfig()
        self._held: dict[str, dict[int, Held]] = {}
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
                for label, number in model.version_labels.items():
                    if before.get(label, number) != number:
                        self._check_available(model.name, number)
            self._config = config

    def refresh(self) -> None:
        """Looks at the disk, loads versions that are new and lets go of those no longer wanted."""
        wanted = {}
        for model in self._config.model_config_list.config:
            folder = Path(model.base_path)
            numbers = version_numbers(folder) if folder.is_dir() else []
            wanted[model.name] = _choose(model.model_version_policy, numbers)
            for number in wanted[model.name]:
                self._load(model.name, number, folder / str(number))
        for name in list(self._held):
            self._let_go(name, wanted.get(name, []))

    @contextmanager
    def use(self, spec: ModelSpec) -> Iterator[Version]:
        """Yields the version that a request asks for, which stays until the block ends.

        Raises:
            ServingError: INVALID_ARGUMENT without a name or for an unknown label, NOT_FOUND where
                there is no such model or version.
        """
        with self._lock:
            held = self._find(spec)
            held.users += 1
        try:
            yield held.version
        finally:
            with self._lock:
                held.users -= 1
            self._free(held)

    def states(self, spec: ModelSpec) -> dict[int, Held]:
        """Returns how it stands with each version of a model, or with the one asked for.

        Raises:
            ServingError: NOT_FOUND, there is none.
        """
        with self._lock:
            held = dict(sorted(self._held.get(spec.name, {}).items(), reverse=True))
        if spec.HasField("version"):
            number = spec.version.value
            if number not in held:
                message = f"Could not find version {number} of model {spec.name}"
                raise ServingError("NOT_FOUND", message)
            return {number: held[number]}
        if not held:
            raise ServingError("NOT_FOUND", f"Could not find any versions of model {spec.name}")
        return held

    def absent(self) -> dict[str, str]:
        """Returns the configured models that no version answers for.

        Each with the reason of its newest version where all failed, else "": one may come yet.
        """
        with self._lock:
            names = [model.name for model in self._config.model_config_list.config]
            return {name: self._fault(name) for name in names if not self._available(name)}

    def close(self) -> None:
        """Lets every version go."""
        self._config = ModelServerConfig()
        self.refresh()

    def _load(self, name: str, number: int, folder: Path) -> None:
        with self._lock:
            before = self._held.get(name, {}).get(number)
        if before and not before.error:
            return
        files = _files(folder)
        # What failed is tried again only where other files have come in its place.
        if before and before.files == files:
            return
        held = Held(files=files)
        with self._lock:
            self._held.setdefault(name, {})[number] = held
        try:
            version = Version(name, number, folder)
        except Exception as error:
            held.state, held.error = END, one_line(error)
            self._report(f"{name} version {number} cannot be loaded: {held.error}")
            return
        with self._lock:
            held.version, held.state = version, AVAILABLE
        self._report(f"{name} version {number} is available")

    def _let_go(self, name: str, wanted: list[int]) -> None:
        with self._lock:
            versions = self._held[name]
            if wanted and not any(number in wanted for number in self._available(name)):
                return
            gone = {number: versions.pop(number) for number in set(versions) - set(wanted)}
            for held in gone.values():
                held.state = END
            if not versions:
                del self._held[name]
        for number, held in gone.items():
            self._free(held)
            self._report(f"{name} version {number} is gone")

    def _free(self, held: Held) -> None:
        with self._lock:
            if held.state != END or held.users or held.version is None:
                return
            version, held.version = held.version, None
        version.close()

    def _find(self, spec: ModelSpec) -> Held:
        if not spec.name:
            raise ServingError("INVALID_ARGUMENT", "ModelSpec has no name specified.")
        available = self._available(spec.name)
        number = self._number(spec)
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

    def _available(self, name: str) -> dict[int, Held]:
        versions = self._held.get(name, {})
        return {number: held for number, held in versions.items() if held.state == AVAILABLE}

    def _fault(self, name: str) -> str:
        versions = self._held.get(name, {})
        failed = [number for number, held in versions.items() if held.error]
        if not failed or len(failed) < len(versions):
            return ""
        return f"version {max(failed)}: {versions[max(failed)].error}"

    def _check_available(self, name: str, number: int) -> None:
        if number not in self._available(name):
            raise ServingError(
                "FAILED_PRECONDITION",
                f"Request to assign label to version {number} of model {name}, which is not "
                "currently available for inference",
            )


def _files(folder: Path) -> frozenset:
    """Returns what tells the files of a version from any that replace them."""
    found = set()
    for path in (folder, *folder.rglob("*")):
        # Where they are just being replaced, the next look finds those that came.
        with suppress(OSError):
            stat = path.stat()
            found.add((path, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return frozenset(found)


def _choose(policy: Policy, numbers: list[int]) -> list[int]:
    """Returns which of the versions on disk, rising, a policy wants."""
    if policy.HasField("all"):
        return numbers
    if policy.HasField("specific"):
        return [number for number in numbers if number in policy.specific.versions]
    return numbers[-(policy.latest.num_versions or 1) :]
