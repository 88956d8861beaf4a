"""A web server on a loopback port that says exactly what a test tells it to, well-formed or not."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

Route = Callable[["Asked", socket.socket], bytes | None]


@dataclass(frozen=True)
class Asked:
    """A request as it came over the wire; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


def reply(body: bytes = b"", status: int = 200, *fields: str) -> bytes:
    """Write a whole answer."""
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@dataclass
class Site:
    """One thread a connection. A route gives the answer's bytes, or None to have the connection closed."""

    context: ssl.SSLContext | None = None
    routes: dict[str, bytes | Route] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)
    address: str = "127.0.0.1"

    def __post_init__(self) -> None:
        self._listener = socket.create_server((self.address, 0))
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """Give the URL of a path."""
        return f"{'https' if self.context else 'http'}://{host}:{self.port}{path}"

    def hang_up(self) -> None:
        """Close every connection that is open now."""
        with self._lock:
            for each in self._open:
                _shut(each)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped.set()
        _shut(self._listener)
        self._threads[0].join(10)
        self.hang_up()
        for each in self._threads:
            each.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket) -> None:
        sock = plain
        try:
            if self.context:
                sock = self.context.wrap_socket(plain, server_side=True)
                with self._lock:
                    self._open.append(sock)
            with sock.makefile("rb") as lines:
                while self._answer(sock, lines.readline, lines.read):
                    pass
        except (OSError, ValueError):
            pass  # the client left
        finally:
            with self._lock:
                self._open = [each for each in self._open if each not in (plain, sock)]
            _shut(sock)
            sock.close()
            plain.close()

    def _answer(self, sock: socket.socket, line: Callable[[], bytes], read: Callable[[int], bytes]) -> bool:
        words = line().decode("latin-1").split()
        if len(words) < 2:
            return False
        fields = {}
        while text := line().decode("latin-1").strip():
            name, _, value = text.partition(":")
            fields[name.lower()] = value.strip()
        asked = Asked(words[0], words[1], fields, read(int(fields.get("content-length", 0))))
        self.asked.append(asked)
        route = self.routes.get(asked.target.partition("?")[0], reply(b"nothing here", 404))
        answer = route if isinstance(route, bytes) else route(asked, sock)
        if answer is not None:
            sock.sendall(answer)
        return answer is not None


@contextmanager
def hanging(site: Site, *paths: str, at_last: bytes | None = None) -> Iterator[threading.Semaphore]:
    """Have a site answer nothing, until the block ends; each request is told."""
    told, release = threading.Semaphore(0), threading.Event()

    def hang(_: object, __: object) -> bytes | None:
        told.release()
        release.wait(60)
        return at_last

    site.routes |= dict.fromkeys(paths, hang)
    try:
        yield told
    finally:
        release.set()


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
