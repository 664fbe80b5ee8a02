"""HTTP connections of which every step ends when a request's time is up."""

from __future__ import annotations

import io
import socket
import ssl
import time
from http.client import HTTPConnection
from select import POLLIN, poll

from tf_dpce.serving.errors import Refused

_PIECE = 2**18


class Deadline:
    """A moment by which something must be done.

    Args:
        seconds: from now on.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Returns the seconds that are left.

        Raises:
            TimeoutError: there are none.
        """
        if (left := self._end - time.monotonic()) <= 0:
            raise TimeoutError
        return left


class Connection:
    """An HTTP/1.1 connection, opened by its first request.

    Args:
        host: a name or an address.
        port: None for 80, or 443 with TLS.
        tls: None sends in clear.
    """

    def __init__(self, host: str, port: int | None, tls: ssl.SSLContext | None) -> None:
        port = port or (443 if tls else 80)
        self._place = (host, port)
        self._tls = tls
        self._http = HTTPConnection(host, port)
        if tls:
            self._http.default_port = 443  # which the header `Host` leaves out

    def post(
        self, path: str, body: bytes, headers: dict[str, str], deadline: Deadline
    ) -> tuple[int, bytes]:
        """Sends a request and returns the status and the body of the answer.

        Where that fails, the connection is closed.

        Raises:
            Refused: nobody accepted the connection.
            TimeoutError: the time was up.
            OSError: the connection broke, or TLS failed, or the name of the host is unknown.
            UnicodeError: the host is no name.
            http.client.HTTPException: the answer is not HTTP.
        """
        try:
            if self._http.sock is None:
                self._http.sock = _Bounded(self._open(deadline))
            self._http.sock.deadline = deadline
            self._http.request("POST", path, body, headers)
            answer = self._http.getresponse()
            return answer.status, answer.read()
        except BaseException:
            self.close()
            raise

    def is_quiet(self) -> bool:
        """Tells whether it is open and nothing comes unasked, such as the server's farewell."""
        if self._http.sock is None:
            return False
        waiting = poll()
        waiting.register(self._http.sock, POLLIN)
        return not waiting.poll(0)

    def close(self) -> None:
        """Closes the connection; a further request opens it again."""
        self._http.close()

    def _open(self, deadline: Deadline) -> socket.socket:
        opened = _dial(self._place, deadline)
        try:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is None:
                return opened
            opened.settimeout(deadline.left())
            return self._tls.wrap_socket(opened, server_hostname=self._place[0])
        except BaseException:
            opened.close()
            raise


def tls_context() -> ssl.SSLContext:
    """Returns what checks a server's certificate by the authorities that this machine trusts."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class _Bounded:
    """What an `HTTPConnection` asks of a socket, with one deadline over all of it.

    A timeout of the socket's own would begin anew with every piece that arrives.
    """

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self.deadline = Deadline(0)

    def sendall(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            self._socket.settimeout(self.deadline.left())
            rest = rest[self._socket.send(rest[:_PIECE]) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self, self._socket.makefile(mode, buffering=0)))

    def receive(self, stream: io.RawIOBase, buffer: memoryview) -> int | None:
        self._socket.settimeout(self.deadline.left())
        return stream.readinto(buffer)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()


class _Reader(io.RawIOBase):
    def __init__(self, bounded: _Bounded, stream: io.RawIOBase) -> None:
        self._bounded = bounded
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:
        return self._bounded.receive(self._stream, buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _dial(place: tuple[str, int], deadline: Deadline) -> socket.socket:
    """Returns a socket that is connected to the first address of a host that answers."""
    failure = None
    addresses = socket.getaddrinfo(*place, type=socket.SOCK_STREAM)
    for after, (*kind, _, address) in zip(range(len(addresses))[::-1], addresses, strict=True):
        opened = socket.socket(*kind)
        try:
            # An address that keeps silent leaves to those after it their share of the time.
            opened.settimeout(deadline.left() / (after + 1))
            opened.connect(address)
            return opened
        except OSError as error:
            opened.close()
            failure = error
    if isinstance(failure, TimeoutError):
        raise failure
    raise Refused("UNAVAILABLE", failure.strerror or str(failure))
