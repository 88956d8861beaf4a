"""A forward proxy on loopback, through which a browser reaches only what a dialler allows.

A `Proxy` owns its listening socket, one thread that moves what all connections carry, threads that dial, one that asks
for bandwidth where there is a limit, and the last refusal of each address. When it dies, the browser behind it
reaches nothing.
"""

import logging
import selectors
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

from gaia.errors import ConnectFailed, GaiaError
from tasks import metrics
from tasks.egress import descriptors, heads
from tasks.egress.flows import CHUNK_BYTES, Ending, Flow, Response
from tasks.egress.heads import MARK as MARK  # noqa: PLC0414 - what answers of this proxy are told by
from tasks.egress.heads import MAX_HEAD_BYTES, Malformed, Request
from tasks.egress.pacing import Bandwidth, Pacer

MAX_CONNECTIONS: Final = 4096
"""A tab opens six to a host. More wait, unaccepted, for one to end."""
DIALS: Final = 256
"""At once; more wait. A dial lasts `DIAL_S` at most."""
SPARE_FILES: Final = 512
BACKLOG: Final = 1024
MAX_REFUSALS: Final = 1024
DIAL_S: Final = 10.0
IDLE_S: Final = 60.0
LOOK_S: Final = 1.0
CLOSE_S: Final = DIAL_S + 1.0
TURN_BYTES: Final = 16 * 1024
"""Of a host's bandwidth for one connection, before another has its turn."""

log = logging.getLogger(__name__)


class Dialler(Protocol):
    """Whatever opens connections, to judged addresses alone."""

    def dial(self, host: str, port: int, *, timeout_s: float) -> socket.socket:
        """Connect to the host.

        Raises:
            EgressDenied, NameNotFound, ResolverFailed, ConnectFailed, TimedOut: when there is no connection.
        """


class Proxy:
    """Serves CONNECT, and requests in absolute form, one a connection.

    It listens on loopback and asks for no password, since Chromium takes none for a proxy without a round trip for
    each context. Another program of the machine can use it, and reaches what the dialler allows, no more.
    """

    def __init__(
        self, dialler: Dialler, *, idle_s: float = IDLE_S, bandwidth: Callable[[str], Bandwidth] | None = None
    ) -> None:
        """Listen on a free port of 127.0.0.1 and start to serve; `bandwidth` gives what paces a host's bytes."""
        self._dialler = dialler
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._refusals: OrderedDict[tuple[str, int], GaiaError] = OrderedDict()
        self._dialled: deque[tuple[_Connection, Request, socket.socket | GaiaError]] = deque()
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self._listener.setblocking(False)  # noqa: FBT003 - its only form
        self.port: Final[int] = self._listener.getsockname()[1]
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)  # noqa: FBT003
        self._woken.setblocking(False)  # noqa: FBT003
        # Two sockets each.
        self._most = max(1, min(MAX_CONNECTIONS, (descriptors.raised(2 * MAX_CONNECTIONS + SPARE_FILES)) // 2))
        self._open: set[_Connection] = set()
        self._selector = selectors.DefaultSelector()
        self._pacer = None if bandwidth is None else Pacer(bandwidth, self._wake)
        self._starved: dict[str, deque[_Connection]] = {}
        self._listening = False
        self._accepts_at = self._looked_at = 0.0
        self._dials = ThreadPoolExecutor(DIALS, "gaia-proxy-dial")
        self._thread = threading.Thread(target=self._run, name="gaia-proxy", daemon=True)
        metrics.PROXY_CONNECTIONS.watch(self.connections)
        self._thread.start()

    def connections(self) -> int:
        """Give how many connections are open."""
        return len(self._open)

    def refusal(self, host: str, port: int) -> GaiaError | None:
        """Give why the host could not be reached the last time, None when it could."""
        with self._lock:
            return self._refusals.get((host, port))

    def close(self) -> None:
        """Close every connection and end every thread; a dial under way may last its `DIAL_S`."""
        with self._lock:
            already, self._closed = self._closed, True
        if already:
            return
        self._wake()
        self._thread.join(CLOSE_S)
        if self._pacer is not None:
            self._pacer.close()
        self._dials.shutdown(wait=True, cancel_futures=True)
        for end in (self._waker, self._woken):
            end.close()

    # --- the thread

    def _run(self) -> None:
        self._selector.register(self._woken, selectors.EVENT_READ, self._drain)
        try:
            while not self._closed:
                self._listen(len(self._open) < self._most and time.monotonic() >= self._accepts_at)
                for key, events in self._selector.select(min(LOOK_S, self._idle_s)):
                    key.data(events)
                self._take_dialled()
                self._feed()
                self._end_idle()
        finally:
            for _, _, found in self._dialled:
                if isinstance(found, socket.socket):
                    found.close()
            for each in [*self._open]:
                self._drop(each)
            self._selector.close()
            self._listener.close()

    def _drain(self, _: int) -> None:
        with suppress(BlockingIOError):
            self._woken.recv(CHUNK_BYTES)

    def _wake(self) -> None:
        with suppress(OSError):
            self._waker.send(b".")

    def _listen(self, wanted: bool) -> None:  # noqa: FBT001 - its only argument
        if wanted != self._listening:
            self._listening = wanted
            if wanted:
                self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
            else:
                self._selector.unregister(self._listener)

    def _accept(self, _: int) -> None:
        try:
            client, _address = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:
            # The process is out of descriptors: those of other connections come free.
            self._accepts_at = time.monotonic() + LOOK_S / 2
            return
        client.setblocking(False)  # noqa: FBT003
        connection = _Connection(client, self._pacer)
        self._open.add(connection)
        self._watch(connection)

    def _ready(self, connection: "_Connection", sock: socket.socket, events: int) -> None:
        if connection not in self._open:
            return  # it ended in this very turn
        was_starved = connection.starved
        try:
            if connection.moved(sock, events):
                self._dial(connection)
            if connection.starved and not was_starved:
                self._starved.setdefault(connection.host, deque()).append(connection)
            self._watch(connection)
        except (OSError, Malformed, RuntimeError):  # the last where the system gives no more threads
            self._drop(connection)  # the browser sees its connection close

    def _watch(self, connection: "_Connection") -> None:
        """Wait for what it waits for now; for nothing more at its end."""
        wanted = connection.waits_for()
        if not wanted and not connection.dialling and not connection.starved:
            self._drop(connection)
            return
        for sock, events in {**dict.fromkeys(connection.watched, 0), **wanted}.items():
            known = connection.watched.get(sock, 0)
            if not events:
                self._selector.unregister(sock)
            elif not known:
                self._selector.register(sock, events, partial(self._ready, connection, sock))
            elif events != known:
                self._selector.modify(sock, events, partial(self._ready, connection, sock))
        connection.watched = wanted

    def _drop(self, connection: "_Connection") -> None:
        self._open.discard(connection)
        for sock in connection.watched:
            self._selector.unregister(sock)
        connection.watched = {}
        connection.close()

    def _feed(self) -> None:
        """Let connections that waited for bandwidth read again, in the order of their waiting, as far as it goes."""
        if self._pacer is None:
            return
        for host, waiting in [*self._starved.items()]:
            credit = self._pacer.credit(host)
            while waiting and credit > 0:
                each = waiting.popleft()
                credit -= TURN_BYTES
                each.fed()
                if each in self._open:
                    self._watch(each)
            if not waiting:
                del self._starved[host]

    def _end_idle(self) -> None:
        now = time.monotonic()
        if now - self._looked_at < min(LOOK_S, self._idle_s):
            return
        self._looked_at, before = now, now - self._idle_s
        for each in [each for each in self._open if not each.dialling and not each.starved and each.moved_at < before]:
            self._drop(each)

    # --- dials

    def _dial(self, connection: "_Connection") -> None:
        request = Request.parse(connection.take_head())
        connection.dialling = True
        self._dials.submit(self._dial_for, connection, request)

    def _dial_for(self, connection: "_Connection", request: Request) -> None:
        found: socket.socket | GaiaError
        try:
            found = self._dialler.dial(request.host, request.port, timeout_s=DIAL_S)
        except GaiaError as failure:
            found = failure
        except Exception:
            log.exception("a dial for Chromium failed")
            found = ConnectFailed(request.host, "the dial failed")
        with self._lock:
            self._remember(request.host, request.port, found)
            closed = self._closed
            if not closed:
                self._dialled.append((connection, request, found))
        if closed and isinstance(found, socket.socket):
            found.close()
        self._wake()

    def _remember(self, host: str, port: int, found: socket.socket | GaiaError) -> None:
        if isinstance(found, socket.socket):
            self._refusals.pop((host, port), None)
            return
        self._refusals[host, port] = found
        self._refusals.move_to_end((host, port))
        while len(self._refusals) > MAX_REFUSALS:
            self._refusals.popitem(last=False)

    def _take_dialled(self) -> None:
        while self._dialled:
            connection, request, found = self._dialled.popleft()
            connection.dialled(request, found)
            self._watch(connection)


class _Connection:
    """A browser's connection: its head comes, then the dial ends, then bytes flow until each way has ended."""

    def __init__(self, client: socket.socket, pacer: Pacer | None) -> None:
        self._client = client
        self._pacer = pacer
        self.host = ""
        self.starved = False
        self._server: socket.socket | None = None
        self._head = b""
        self._rest = b""
        self._flows: tuple[Flow, ...] | None = None
        self.dialling = False
        self.watched: dict[socket.socket, int] = {}
        self.moved_at = time.monotonic()

    def waits_for(self) -> dict[socket.socket, int]:
        """Give the events that each socket is to be looked at for."""
        if self._flows is None:
            return {} if self.dialling else {self._client: selectors.EVENT_READ}
        found: dict[socket.socket, int] = {}
        for each in self._flows:
            wait = each.waits_for()
            if wait is not None and not (self.starved and wait[1] == selectors.EVENT_READ):
                found[wait[0]] = found.get(wait[0], 0) | wait[1]
        return found

    def moved(self, sock: socket.socket, events: int) -> bool:
        """Move what can move; say whether the head has come.

        Raises:
            OSError: if an end broke.
            Malformed: if it is no HTTP.
        """
        if self._flows is None:
            return self._read_head()
        self.moved_at = time.monotonic()
        for flow in self._flows:
            wait = flow.waits_for()
            if wait is not None and wait[0] is sock and wait[1] & events:
                with suppress(BlockingIOError):
                    self._step(flow, reads=wait[1] == selectors.EVENT_READ)
        return False

    def _step(self, flow: Flow, *, reads: bool) -> None:
        if self._pacer is None or not reads:
            flow.step()
            return
        most, moved = self._pacer.take(self.host, CHUNK_BYTES), 0
        if most == 0:
            self.starved = True
            return
        try:
            moved = flow.step(most)
        finally:
            self._pacer.give_back(self.host, most - moved)

    def fed(self) -> None:
        """Read again: there is bandwidth."""
        self.starved = False
        self.moved_at = time.monotonic()

    def _read_head(self) -> bool:
        with suppress(BlockingIOError):
            chunk = self._client.recv(CHUNK_BYTES)
            if not chunk or len(self._head) > MAX_HEAD_BYTES:
                raise Malformed
            self._head += chunk
        return b"\r\n\r\n" in self._head

    def take_head(self) -> bytes:
        """Give the head that has come, without its empty line; what follows is kept."""
        head, _, self._rest = self._head.partition(b"\r\n\r\n")
        self._head = b""
        return head

    def dialled(self, request: Request, found: socket.socket | GaiaError) -> None:
        """Let the bytes flow, or the refusal."""
        self.dialling = False
        self.moved_at = time.monotonic()
        if isinstance(found, GaiaError):
            self._flows = (Ending(self._client, heads.refusal(found)),)
            return
        self._server = found
        self.host = request.host
        found.setblocking(False)  # noqa: FBT003
        if request.method == "CONNECT":
            answer = b"HTTP/1.1 200 Connection established\r\n\r\n"
            self._flows = Flow(self._client, found, self._rest), Flow(found, self._client, answer)
        else:
            self._flows = (
                Flow(self._client, found, request.origin_form() + self._rest),
                Response(found, self._client),
            )

    def close(self) -> None:
        """Close both ends."""
        for each in (self._client, self._server):
            if each is not None:
                each.close()
