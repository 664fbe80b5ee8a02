"""A connection to Milvus, and where one leads; what goes wrong becomes a line for the user."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tf_dpce.errors import UserError, shorten

DEFAULT_NAME = "tf_dpce"
TOKEN = "MILVUS_TOKEN"  # environment variable, because a command line can be read by everybody

_SERVER = re.compile(r"(https?):/+", re.IGNORECASE)
# Letters that Milvus allows; the names of its collections are longer by a version and a kind.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_CONNECTING, _READING, _WRITING, _LOADING = 10, 20, 60, 600  # seconds until a call has failed
_SECONDS = {"upsert": _WRITING, "delete": _WRITING, "flush": _WRITING, "load_collection": _LOADING}
# Milvus's codes, old and new, of a collection that does not exist, or is not loaded.
_NOT_THERE = (4, 100, 101)
_NO_RIGHT = (1400, 1401, 1402)
_DATABASE_FILES = {"LOCK", "collections"}


def is_milvus(target: str | Path) -> bool:
    """Returns whether a target names an index in Milvus, and not a folder.

    Example:
        >>> is_milvus("http://localhost:19530#beach"), is_milvus("photos.db"), is_milvus("photos")
        (True, True, False)
    """
    return bool(_SERVER.match(str(target)) or re.search(r"\.db(#[^/]*)?$", str(target)))


@dataclass(frozen=True)
class Target:
    """Where an index in Milvus is.

    Attributes:
        uri: address of a server, `http://HOST:PORT`, or the path of a database of Milvus Lite.
        name: name of the index there.
        is_local: whether it is Milvus Lite, which runs in this process.
    """

    uri: str
    name: str
    is_local: bool

    @classmethod
    def parse(cls, target: str | Path) -> Target:
        """Reads `http(s)://HOST:PORT[#NAME]` or `PATH.db[#NAME]`.

        Raises:
            UserError: the address has no host, or a user name in it; or Milvus allows no such name.
        """
        # `Path` makes one slash of two.
        uri, _, name = _SERVER.sub(r"\1://", str(target)).partition("#")
        parsed = cls(uri, name or DEFAULT_NAME, is_local=not _SERVER.match(uri))
        if not parsed.is_local and not _is_address(uri):
            message = f"no address of Milvus: write http://HOST:19530#NAME, and a user into {TOKEN}"
            raise UserError("milvus.address", message)
        if not _NAME.fullmatch(parsed.name):
            message = f"'{shorten(name)}' is no name in Milvus: take letters, digits and _"
            raise UserError("milvus.address", message)
        return parsed

    def __str__(self) -> str:
        return f"{self.uri}#{self.name}"


def _is_address(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        return bool(parts.hostname) and parts.port != 0 and parts.username is None
    except ValueError:
        return False


class Connection:
    """A client of Milvus whose calls end in bounded time.

    Args:
        target: where to connect to.
        create: whether a database of Milvus Lite may be new.

    Raises:
        UserError: pymilvus is not installed, or nobody answers there.
    """

    def __init__(self, target: Target, create: bool = False) -> None:
        self.target = target
        _require_packages(target)
        # It writes to stderr by itself, with tracebacks.
        for name in ("pymilvus", "pymilvus.milvus_client", "milvus_lite", "grpc._server"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        if target.is_local:
            _check_database(Path(target.uri), create)
        self._client = self._connect()
        # Milvus Lite has none.
        version = self.call("get_server_version")
        self._knows_parameters = not version.startswith("milvus_lite")

    def _connect(self) -> Any:
        import pymilvus

        options = {
            # Otherwise a new connection waits as long as one before it that failed.
            "grpc.use_local_subchannel_pool": 1,
            # A proxy for requests to other machines is none for this process.
            "grpc.enable_http_proxy": int(not self.target.is_local),
        }
        with _explained(self.target):
            return pymilvus.MilvusClient(
                self.target.uri,
                token=os.environ.get(TOKEN, ""),
                timeout=_CONNECTING,
                dedicated=True,
                grpc_options=options,
            )

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Calls a method of `pymilvus.MilvusClient`.

        Raises:
            UserError: Milvus does not answer, or refuses.
        """
        with _explained(self.target):
            seconds = _SECONDS.get(method, _READING)
            return getattr(self._client, method)(*arguments, timeout=seconds, **options)

    def condition(self, expression: str, **parameters: Any) -> dict[str, Any]:
        """Returns the options of a call that restrict it to what passes an expression.

        Args:
            expression: names of columns, operators and, in braces, names of parameters.
            parameters: their values.
        """
        if self._knows_parameters:
            return {"filter": expression, "filter_params": parameters}
        # The values become literals of the grammar.
        literals = {name: _literal(value) for name, value in parameters.items()}
        return {"filter": re.sub(r"\{(\w+)\}", lambda found: literals[found[1]], expression)}


@contextmanager
def _explained(target: Target) -> Iterator[None]:
    """Turns what pymilvus raises in a block into a `UserError`."""
    import grpc
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, grpc.RpcError) as error:
        raise _explain(target, error) from None


def _explain(target: Target, error: Any) -> UserError:
    import grpc

    rpc = next((one for one in (error, error.__cause__) if isinstance(one, grpc.RpcError)), None)
    code = error.code if rpc is None else rpc.code()
    text = str(error.message if rpc is None else rpc.details())
    if code in _NOT_THERE:
        return UserError("index.missing", f"there is no index {target}: build one with index")
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, *_NO_RIGHT):
        message = f"{target.uri} refuses these credentials: set {TOKEN}=USER:PASSWORD, or a token"
        return UserError("milvus.credentials", message)
    if target.is_local and "Open local milvus failed" in text:
        message = f"{target.uri} cannot be opened: another process has it open, or it is damaged"
        return UserError("milvus.local", message, target.uri)
    if rpc is not None or re.search(r"Fail connecting|Retry timeout", text):
        message = f"Milvus at {target.uri} does not answer: check that it runs, and the address"
        return UserError("milvus.unreachable", message)
    return UserError("milvus.refused", f"Milvus at {target.uri} answers: {shorten(text, 200)}")


def _require_packages(target: Target) -> None:
    missing = [name for name in ("pymilvus", "milvus_lite") if find_spec(name) is None]
    if "pymilvus" in missing or (target.is_local and missing):
        message = f"{target} needs pymilvus and milvus-lite: pip install -r requirements-milvus.txt"
        raise UserError("milvus.package", message)


def _check_database(path: Path, create: bool) -> None:
    """Refuses what is no database of Milvus Lite, which would fill any folder."""
    if not path.exists() and not create:
        message = f"{path} does not exist: build an index with the verb index"
        raise UserError("index.missing", message, path)
    foreign = path.is_file() or (path.is_dir() and any(path.iterdir()))
    if foreign and not (
        path.is_dir() and _DATABASE_FILES <= {item.name for item in path.iterdir()}
    ):
        message = f"{path} is no database of Milvus Lite: give another name"
        raise UserError("milvus.local", message, path)
    path.parent.mkdir(parents=True, exist_ok=True)


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
        return '"' + "".join(escapes.get(letter, letter) for letter in value) + '"'
    if isinstance(value, Iterable):
        return f"[{', '.join(map(_literal, value))}]"
    return repr(value)
