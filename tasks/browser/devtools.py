"""A synchronous client of the Chrome DevTools Protocol over a socket pair (`--remote-debugging-pipe`).

A `DevTools` owns one thread that reads replies and events for all callers. When the browser dies, everyone who waits
gets `BrowserUnavailable`.
"""

import itertools
import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import Any, Final

from gaia.errors import BrowserUnavailable

READ_BYTES: Final = 256 * 1024
MAX_MESSAGE_BYTES: Final = 512 * 1024 * 1024
"""A browser whose reply is larger is cut off: the worker must not run out of memory for one page."""
SEND_S: Final = 10.0

Reply = dict[str, Any]
Listener = Callable[[str, Reply], None]
"""Takes an event's method and parameters, in the reading thread: it may `tell`, it must not `call`."""


class ProtocolError(Exception):
    """The browser refused a command. It stays below the service."""


class SessionClosed(Exception):  # noqa: N818 - a finding; the page's owner knows whether it is an error
    """The page is gone: closed, crashed, or given up by its own caller."""


class NoReply(Exception):  # noqa: N818 - a finding; the page's owner knows which bound passed
    """The browser did not answer in time."""


class DevTools:
    """Commands out, replies and events in. Safe to call from many threads."""

    def __init__(self, pipe: socket.socket, on_browser_event: Listener) -> None:
        """Take over the socket and start to read."""
        self._pipe = pipe
        self._pipe.settimeout(SEND_S)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._waiting: dict[int, tuple[str | None, Future[Reply]]] = {}
        self._listeners: dict[str | None, Listener] = {None: on_browser_event}
        self._dead = False
        self._reader = threading.Thread(target=self._read, name="gaia-devtools", daemon=True)
        self._reader.start()

    @property
    def dead(self) -> bool:
        """Say whether the browser hung up."""
        return self._dead

    def listen(self, session: str, listener: Listener) -> None:
        """Send the events of a session to the listener."""
        with self._lock:
            self._listeners[session] = listener

    def release(self, session: str) -> None:
        """Forget a session; whoever waits on it gets `SessionClosed`."""
        with self._lock:
            self._listeners.pop(session, None)
            mine = [number for number, (owner, _) in self._waiting.items() if owner == session]
            futures = [self._waiting.pop(number)[1] for number in mine]
        for each in futures:
            each.set_exception(SessionClosed())

    def send(self, method: str, parameters: Reply | None = None, session: str | None = None) -> Future[Reply]:
        """Send a command and give what will hold its reply.

        Raises:
            BrowserUnavailable: if the browser is dead.
        """
        number = next(self._numbers)
        message: Reply = {"id": number, "method": method, "params": parameters or {}}
        if session is not None:
            message["sessionId"] = session
        future: Future[Reply] = Future()
        with self._lock:
            if self._dead:
                raise _gone()
            if session is not None and session not in self._listeners:
                raise SessionClosed
            self._waiting[number] = session, future
        self._write(json.dumps(message).encode() + b"\0")
        return future

    def tell(self, method: str, parameters: Reply | None = None, session: str | None = None) -> None:
        """Send a command whose outcome no one waits for."""
        with suppress(BrowserUnavailable, SessionClosed):
            self.send(method, parameters, session)

    def call(
        self, method: str, parameters: Reply | None = None, *, session: str | None = None, timeout_s: float
    ) -> Reply:
        """Send a command and wait for its reply.

        Raises:
            BrowserUnavailable: if the browser is dead or dies meanwhile.
            ProtocolError, SessionClosed, NoReply: as they say.
        """
        return settled(self.send(method, parameters, session), timeout_s)

    def hang_up(self) -> None:
        """Close the pipe's traffic, upon which the browser ends itself and everyone who waits is woken."""
        with suppress(OSError):
            self._pipe.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up and end the reading thread."""
        self.hang_up()
        if threading.current_thread() is not self._reader:
            self._reader.join(SEND_S)
        self._pipe.close()

    def _write(self, message: bytes) -> None:
        try:
            with self._sending:
                self._pipe.sendall(message)
        except OSError:
            # Half a message may be out, so the pipe is of no more use.
            self.hang_up()

    def _read(self) -> None:
        try:
            self._read_messages()
        finally:
            with self._lock:
                self._dead = True
                waiting, self._waiting = self._waiting, {}
            for _, future in waiting.values():
                future.set_exception(_gone())

    def _read_messages(self) -> None:
        parts: list[bytes] = []
        size = 0
        while chunk := self._received():
            *ended, rest = chunk.split(b"\0")
            for each in ended:
                self._dispatch(json.loads(b"".join([*parts, each])))
                parts, size = [], 0
            parts.append(rest)
            size += len(rest)
            if size > MAX_MESSAGE_BYTES:
                self.hang_up()
                return

    def _received(self) -> bytes:
        while True:
            try:
                return self._pipe.recv(READ_BYTES)
            except TimeoutError:
                continue  # a browser at rest says nothing
            except OSError:
                return b""

    def _dispatch(self, message: Reply) -> None:
        if "id" not in message:
            with self._lock:
                listener = self._listeners.get(message.get("sessionId"))
            if listener is not None:
                listener(message["method"], message.get("params", {}))
            return
        with self._lock:
            _, future = self._waiting.pop(message["id"], (None, None))
        if future is None:
            return  # its caller has given up
        if "error" in message:
            future.set_exception(ProtocolError(message["error"].get("message", "")))
        else:
            future.set_result(message.get("result", {}))


def settled(future: Future[Reply], timeout_s: float) -> Reply:
    """Wait for a reply; raises as `DevTools.call` does."""
    try:
        return future.result(timeout_s)
    except FutureTimeoutError:
        raise NoReply from None


def _gone() -> BrowserUnavailable:
    return BrowserUnavailable("Chromium ended while it was in use")
