"""Many questions to name servers at once, over UDP, from one thread of this process.

For speed this is no dnspython, which takes six times the CPU a question (docs/network.md has figures). What needs more
than a datagram each way (a truncated answer, a server that knows no EDNS) is asked again by the `Stub`, from a few
threads.

Against forged answers (RFC 5452): random identifiers, sockets that are connected, so that the kernel drops what comes
from elsewhere, several of them with ports of the kernel's choice, each replaced after `SOCKET_LIFE` questions or
`SOCKET_AGE_S`; and an answer has to repeat the question.
"""

import heapq
import logging
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count
from typing import Final

from config.nameservers import Server
from gaia.errors import ResolverFailed
from tasks.egress import wire
from tasks.egress.cache import Key
from tasks.egress.stub import Stub

IN_FLIGHT: Final = 500
TRY_S: Final = 0.5
LONGEST_TRY_S: Final = 4.0
"""A server that has not answered by then has not got the question; the next one is asked, and has twice the time."""
WINDOW_FIRST: Final = 100
WINDOW_LEAST: Final = 16
"""Questions out at once: an answer makes it one more, up to `IN_FLIGHT`, a loss half, as in TCP. A burst of 500 is more
than the buffer of a socket holds. Where nothing at all is answered, which tells no crowd from names that are dead, it
stays at the first."""
LATE_PART: Final = 4
"""What was not answered in time waits for a part of the window, a quarter: names whose servers are dead must not keep
out those behind them."""
SOCKETS: Final = 8
SOCKET_LIFE: Final = 2000
SOCKET_AGE_S: Final = 10.0
"""How long a socket is used, so that nobody has the time to find its port out."""
AGAIN_THREADS: Final = 8
AGAIN_S: Final = 10.0
"""How long one of these may take."""
LONGEST_POLL_S: Final = 60.0
CLOSE_S: Final = 2.0

log = logging.getLogger(__name__)

Outcome = wire.Found | ResolverFailed | TimeoutError
Done = Callable[[Key, Outcome], None]


@dataclass(slots=True, eq=False)
class _Asked:
    """A question under way. `place` is the socket's number and the identifier, None while it is not sent.

    `late` is one that had no answer in time before.
    """

    key: Key
    question: bytes
    ends_at: float
    done: Done
    tries: int = 0
    refusals: int = 0
    late: bool = False
    place: tuple[int, int] | None = None


class Bulk:
    """Thread-safe; the thread starts with the first question."""

    def __init__(self, stub: Stub, *, in_flight: int = IN_FLIGHT, try_s: float = TRY_S) -> None:
        """Ask the stub's servers. `in_flight` bounds what is out at once, the rest waits here."""
        self._stub = stub
        self._servers = stub.servers
        self._in_flight = in_flight
        self._window = float(min(WINDOW_FIRST, in_flight))
        self._narrowed_at = 0.0
        self._try_s = try_s
        self._lock = threading.Lock()
        self._waiting: deque[_Asked] = deque()
        self._thread: threading.Thread | None = None
        self._wake_in, self._wake_out = -1, -1
        self._again: ThreadPoolExecutor | None = None
        self._closed = False
        self._identifiers = b""
        self._order = count()
        self._reset()

    def _reset(self) -> None:
        """Make what is the thread's own."""
        self._sockets: dict[int, socket.socket] = {}
        self._lanes: dict[Server, list[socket.socket]] = {}
        self._out: dict[tuple[int, int], _Asked] = {}
        self._late: deque[_Asked] = deque()
        self._late_out = 0
        self._answered = False
        """Since the window was narrowed last."""
        self._load: dict[int, int] = {}
        self._sent: dict[int, int] = {}
        self._old_at: dict[int, float] = {}
        self._due: list[tuple[float, int, _Asked, int]] = []

    def ask(self, keys: Iterable[Key], ends_at: float, done: Done) -> Callable[[], None]:
        """Ask for canonical names; `done` is called for each, once, by a thread of this object: it must not wait.

        It is given what was found, `ResolverFailed`, or `TimeoutError` once `ends_at`, monotonic time, has passed.
        What is returned makes that now, for whoever does not want to know any more.
        """
        asked = [_Asked(each, wire.question(*each), ends_at, done) for each in keys]
        reason = self._refusal(asked)
        for each in asked if reason else ():
            done(each.key, ResolverFailed(each.key[0], reason))

        def forget() -> None:
            for each in asked:
                each.ends_at = 0.0

        return forget

    def _refusal(self, asked: list[_Asked]) -> str:
        """Let questions wait for the thread; give "", or why that cannot be."""
        if not self._servers:
            return "no name server is configured"
        with self._lock:
            if self._closed:
                return "the resolver is closed"
            try:
                self._start()
            except (OSError, RuntimeError) as failure:  # no more descriptors or threads; the next call tries again
                return f"the resolver cannot start: {failure}"
            self._waiting.extend(asked)
            self._wake()
        return ""

    def close(self) -> None:
        """End the thread; what is under way fails."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            thread = self._thread
            if thread is not None:
                self._wake()
        if thread is not None:
            thread.join(CLOSE_S)
        if self._again is not None:
            self._again.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        if self._thread is not None:
            return
        with ExitStack() as made:
            self._poller = made.enter_context(select.epoll())
            self._wake_in, self._wake_out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            made.callback(os.close, self._wake_in)
            made.callback(os.close, self._wake_out)
            self._poller.register(self._wake_in, select.EPOLLIN)
            thread = threading.Thread(target=self._run, name="gaia-dns-bulk", daemon=True)
            thread.start()
            self._thread = thread
            made.pop_all()

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # the pipe is full: it will wake
            os.write(self._wake_out, b"\0")

    # --- the thread

    def _run(self) -> None:
        poller, reason = self._poller, "the resolver is closed"
        try:
            while not self._closed:
                self._admit()
                for number, _ in poller.poll(self._pause_s()):
                    if number == self._wake_in:
                        with suppress(BlockingIOError):
                            os.read(self._wake_in, 4096)
                    else:
                        self._drain(number)
                self._expire()
        except Exception as failure:
            log.exception("bulk look-ups begin anew: those under way fail")
            reason = f"the resolver failed: {type(failure).__name__}"
        finally:
            self._end(reason)

    def _end(self, reason: str) -> None:
        """Fail what is left; the next question starts another thread, unless this was closed."""
        with self._lock:
            left = [*self._out.values(), *self._late, *self._waiting]
            self._waiting.clear()
            os.close(self._wake_out)
            os.close(self._wake_in)
            self._poller.close()
            for each in self._sockets.values():
                each.close()
            self._reset()
            self._thread = None
        for asked in left:
            asked.done(asked.key, ResolverFailed(asked.key[0], reason))

    def _admit(self) -> None:
        while self._late and self._late_out < self._window / LATE_PART and len(self._out) < self._window:
            self._send(self._late.popleft())
        while len(self._out) < self._window:
            try:
                asked = self._waiting.popleft()
            except IndexError:
                return
            if "." in asked.key[0]:
                self._send(asked)
            else:
                self._ask_again(asked, tcp=False)  # a search list completes it

    def _pause_s(self) -> float:
        return max(0.0, min(self._due[0][0] - time.monotonic(), LONGEST_POLL_S)) if self._due else LONGEST_POLL_S

    def _send(self, asked: _Asked) -> None:
        """Send to the next server that takes it; give up when as many refused as there are, or the time is over."""
        while True:
            now = time.monotonic()
            if now >= asked.ends_at:
                asked.done(asked.key, TimeoutError())
                return
            if asked.refusals >= len(self._servers):
                asked.done(asked.key, ResolverFailed(asked.key[0], "every name server failed or refused"))
                return
            server = self._servers[asked.tries % len(self._servers)]
            asked.tries += 1
            try:
                self._send_to(server, asked, now)
            except OSError:
                asked.refusals += 1
            else:
                return

    def _refuse(self, asked: _Asked) -> None:
        asked.refusals += 1
        self._send(asked)

    def _send_to(self, server: Server, asked: _Asked, now: float) -> None:
        sock = self._socket(server, now)
        number = sock.fileno()
        place = (number, self._identifier())
        while place in self._out:
            place = (number, self._identifier())
        sock.send(wire.query(place[1], asked.question))
        asked.place = place
        self._out[place] = asked
        self._late_out += asked.late
        self._load[number] += 1
        self._sent[number] += 1
        patience_s = min(self._try_s * 2 ** ((asked.tries - 1) // len(self._servers)), LONGEST_TRY_S)
        due_at = min(now + patience_s, asked.ends_at)
        heapq.heappush(self._due, (due_at, next(self._order), asked, asked.tries))

    def _socket(self, server: Server, now: float) -> socket.socket:
        """Give one of the server's sockets, in turns."""
        lane = self._lanes.setdefault(server, [])
        if len(lane) < SOCKETS:
            return self._opened(server, lane, now)
        sock = lane.pop(0)
        number = sock.fileno()
        if self._sent[number] >= SOCKET_LIFE or now >= self._old_at[number]:
            self._sent[number] = SOCKET_LIFE
            self._retire(sock)
            return self._opened(server, lane, now)
        lane.append(sock)
        return sock

    def _opened(self, server: Server, lane: list[socket.socket], now: float) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in server[0] else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.settimeout(0.0)
            sock.connect(server)
        except OSError:
            sock.close()
            raise
        self._poller.register(sock.fileno(), select.EPOLLIN)
        self._sockets[sock.fileno()] = sock
        self._load[sock.fileno()] = self._sent[sock.fileno()] = 0
        self._old_at[sock.fileno()] = now + SOCKET_AGE_S
        lane.append(sock)
        return sock

    def _retire(self, sock: socket.socket) -> None:
        """Close a socket that is in no lane any more as soon as nothing is expected from it."""
        number = sock.fileno()
        if not self._load[number]:
            self._poller.unregister(number)
            del self._sockets[number], self._load[number], self._sent[number], self._old_at[number]
            sock.close()

    def _identifier(self) -> int:
        if not self._identifiers:
            self._identifiers = os.urandom(2048)
        drawn, self._identifiers = self._identifiers[:2], self._identifiers[2:]
        return int.from_bytes(drawn, "big")

    def _drain(self, number: int) -> None:
        """Read what has come, a bounded number so that the others have their turn."""
        sock = self._sockets.get(number)
        for _ in range(self._in_flight):
            if sock is None or sock.fileno() < 0:
                return
            try:
                message = sock.recv(4096)
            except BlockingIOError:
                return
            except OSError:
                # The port is closed (ICMP): nothing that was sent there will be answered.
                for place in [each for each in self._out if each[0] == number]:
                    self._refuse(self._landed(place))
                return
            asked = self._out.get((number, int.from_bytes(message[:2], "big")))
            if asked is not None and asked.place is not None and wire.is_answer(message, asked.question):
                self._landed(asked.place)
                self._answer(asked, message)

    def _landed(self, place: tuple[int, int]) -> _Asked:
        asked = self._out.pop(place)
        asked.place = None
        self._late_out -= asked.late
        number = place[0]
        self._load[number] -= 1
        if not self._load[number] and self._sent[number] >= SOCKET_LIFE:
            sock = self._sockets[number]
            for lane in self._lanes.values():
                if sock in lane:
                    lane.remove(sock)
            self._retire(sock)
        return asked

    def _answer(self, asked: _Asked, message: bytes) -> None:
        try:
            found = wire.read(message, asked.question, asked.key[1])
        except wire.Malformed:
            self._refuse(asked)
        except wire.Truncated:
            self._ask_again(asked, tcp=True)
        except wire.Refused as refusal:
            if refusal.rcode in {wire.FORMERR, wire.NOTIMP}:
                self._ask_again(asked, tcp=False)
            else:
                self._refuse(asked)
        except Exception as failure:  # whoever waits must be told
            log.exception("an answer could not be read")
            asked.done(asked.key, ResolverFailed(asked.key[0], type(failure).__name__))
        else:
            self._window, self._answered = min(self._in_flight, self._window + 1.0), True
            asked.done(asked.key, found)

    def _ask_again(self, asked: _Asked, *, tcp: bool) -> None:
        if self._again is None:
            self._again = ThreadPoolExecutor(AGAIN_THREADS, thread_name_prefix="gaia-dns-again")
        self._again.submit(self._by_stub, asked, tcp)

    def _by_stub(self, asked: _Asked, tcp: bool) -> None:  # noqa: FBT001 - handed on by position
        try:
            found: Outcome = self._stub.ask(
                *asked.key, min(AGAIN_S, max(0.001, asked.ends_at - time.monotonic())), tcp=tcp
            )
        except (TimeoutError, ResolverFailed) as failure:
            found = failure
        except Exception as failure:  # whoever waits must be told
            log.exception("a name could not be asked for")
            found = ResolverFailed(asked.key[0], type(failure).__name__)
        asked.done(asked.key, found)

    def _expire(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            _, _, asked, tries = heapq.heappop(self._due)
            if asked.place is not None and asked.tries == tries:
                self._landed(asked.place)
                if not asked.late:  # what is lost twice is rather dead than lost in a crowd
                    self._narrow(now)
                asked.late = True
                self._late.append(asked)

    def _narrow(self, now: float) -> None:
        if now - self._narrowed_at > self._try_s:
            least = WINDOW_LEAST if self._answered else WINDOW_FIRST
            self._window = min(self._window, max(least, self._window / 2))
            self._narrowed_at, self._answered = now, False
