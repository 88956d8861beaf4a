"""A client of the Chrome DevTools Protocol over a socket pair (`--remote-debugging-pipe`), on one event loop.

A `DevTools` is a protocol of asyncio: no thread, no task of its own. When the browser dies, everyone who waits gets
`BrowserUnavailable`. Nothing here has a bound: the call that waits brings one.
"""

import asyncio
import itertools
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from gaia.errors import BodyTooLarge, BrowserUnavailable

MAX_MESSAGE_BYTES: Final = 128 * 1024 * 1024
"""A larger reply is `BodyTooLarge` to its caller, a larger event is dropped: the worker must not run out of memory for
one page, nor the pages beside it be lost."""
_NUMBER: Final = re.compile(rb'\{"id":(\d+),')

Reply = dict[str, Any]
Listener = Callable[[str, Reply], None]
"""Takes an event's method and parameters: it may `tell`, it must not wait."""


class ProtocolError(Exception):
    """The browser refused a command. It stays below the service."""


class SessionClosed(Exception):  # noqa: N818 - a finding; the page's owner knows whether it is an error
    """The page is gone: closed, crashed, or given up by its own caller."""


class DevTools(asyncio.Protocol):
    """Commands out, replies and events in. To be used in its loop alone."""

    def __init__(self, on_browser_event: Listener) -> None:
        """Wait for the connection."""
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[str | None, asyncio.Future[Reply]]] = {}
        self._listeners: dict[str | None, Listener] = {None: on_browser_event}
        self._transport: asyncio.Transport | None = None
        self._parts: list[bytes] = []
        self._size_bytes = 0
        self.dead = False
        self.on_refusal: Callable[[], None] = lambda: None

    def listen(self, session: str, listener: Listener) -> None:
        """Send the events of a session to the listener."""
        self._listeners[session] = listener

    def release(self, session: str) -> None:
        """Forget a session; whoever waits on it gets `SessionClosed`."""
        self._listeners.pop(session, None)
        mine = [number for number, (owner, _) in self._waiting.items() if owner == session]
        for number in mine:
            _settle(self._waiting.pop(number)[1], SessionClosed())

    def call(self, method: str, parameters: Reply | None = None, session: str | None = None) -> Awaitable[Reply]:
        """Send a command at once, and give what its reply is awaited by.

        Raises:
            BrowserUnavailable: if the browser is dead; awaited, if it dies meanwhile.
            SessionClosed: if the page is gone; awaited, if it goes meanwhile.
            ProtocolError: awaited, if the browser refuses.
        """
        if self.dead or self._transport is None:
            raise _gone()
        if session is not None and session not in self._listeners:
            raise SessionClosed
        number = next(self._numbers)
        message: Reply = {"id": number, "method": method, "params": parameters or {}}
        if session is not None:
            message["sessionId"] = session
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = session, future
        future.add_done_callback(lambda _: self._waiting.pop(number, None))
        self._transport.write(json.dumps(message).encode() + b"\0")
        return future

    def tell(self, method: str, parameters: Reply | None = None, session: str | None = None) -> None:
        """Send a command whose outcome no one waits for."""
        with suppress(BrowserUnavailable, SessionClosed):
            future = asyncio.ensure_future(self.call(method, parameters, session))
            future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def hang_up(self) -> None:
        """Close the pipe, upon which the browser ends itself and everyone who waits is woken."""
        if self._transport is not None:
            self._transport.abort()

    # --- of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the socket."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what a stream socket gets
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake everyone."""
        del exc
        self.dead = True
        waiting, self._waiting = self._waiting, {}
        for _, future in waiting.values():
            _settle(future, _gone())
        self._listeners[None]("disconnected", {})

    def data_received(self, data: bytes) -> None:
        """Take what came apart into messages."""
        *ended, rest = data.split(b"\0")
        for each in ended:
            self._take(each)
            if self._size_bytes <= MAX_MESSAGE_BYTES:
                self._dispatch(json.loads(b"".join(self._parts)))
            self._parts, self._size_bytes = [], 0
        self._take(rest)

    def _take(self, part: bytes) -> None:
        was_whole = self._size_bytes <= MAX_MESSAGE_BYTES
        self._parts.append(part)
        self._size_bytes += len(part)
        if self._size_bytes <= MAX_MESSAGE_BYTES:
            return
        if was_whole and (found := _NUMBER.match(b"".join(self._parts[:2])[:64])) is not None:
            _, future = self._waiting.pop(int(found[1]), (None, None))
            if future is not None:
                _settle(future, BodyTooLarge("Chromium's reply", MAX_MESSAGE_BYTES))
        self._parts = []  # nothing of it is kept

    def _dispatch(self, message: Reply) -> None:
        if "id" not in message:
            listener = self._listeners.get(message.get("sessionId"))
            if listener is not None:
                listener(message["method"], message.get("params", {}))
            return
        _, future = self._waiting.pop(message["id"], (None, None))
        if future is None or future.done():
            return  # its caller has given up
        if "error" in message:
            self.on_refusal()
            future.set_exception(ProtocolError(message["error"].get("message", "")))
        else:
            future.set_result(message.get("result", {}))


def _settle(future: "asyncio.Future[Reply]", failure: Exception) -> None:
    if not future.done():
        future.set_exception(failure)
        future.exception()  # who gave up need not be told


def _gone() -> BrowserUnavailable:
    return BrowserUnavailable("Chromium ended while it was in use")
