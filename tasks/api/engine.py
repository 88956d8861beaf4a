"""Many exchanges at once: one thread of libcurl's multi interface, for all batches of a process.

The thread owns every handle and every connection; transfers come in through a list and a file descriptor that wakes
it, and go out through their `done`. Nothing of the limits is here: whoever submits a transfer has leave to send it. The
connections die with the worker, which costs new dials and nothing else.

libcurl reads no environment here, follows no redirect, keeps no cookie and unpacks nothing. It is given the addresses
that were judged, and each one it opens a socket to is judged again as it does.
"""

import contextlib
import logging
import os
import select
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import pycurl

from gaia.contracts.api import RequestMany
from gaia.errors import ConnectFailed, PoolExhausted
from tasks import metrics
from tasks.api.transfer import Handles, Transfer
from tasks.egress import descriptors
from tasks.egress.judge import Judge

SPARE_FILES: Final = 256
"""Descriptors of a worker beside its bulk connections."""

IDLE_S: Final = 1.0
EVENTS: Final = 512
CLOSE_S: Final = 5.0

_WATCHED: Final = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}

log = logging.getLogger(__name__)


class Engine:
    """Thread-safe. The thread starts with the first transfer."""

    def __init__(self, judge: Judge, connections: int, wait_s: float, ca_file: str) -> None:
        """Have at most so many connections at once; a transfer waits `wait_s` for one at most."""
        self._connections = connections
        self._wait_s = wait_s
        self._judge = judge
        self._ca_file = ca_file
        self._lock = threading.Lock()
        self._inbox: list[Transfer] = []
        self._ended: list[Transfer] = []
        self._fed: list[tuple[Transfer, int]] = []
        self._thread: threading.Thread | None = None
        self._wake = -1
        self._closed = False
        self.active = 0
        self.waiting = 0
        metrics.API_BULK.watch(self.figures)

    def submit(self, transfers: Sequence[Transfer]) -> None:
        """Start transfers; each is handed to its `done` once, in the engine's thread, with others that ended then."""
        with self._lock:
            closed = self._closed
            if not closed:
                self._inbox += transfers
                self._start()
                self._stir()
        if closed:
            _stopped(transfers)

    def abandon(self, transfers: Sequence[Transfer]) -> None:
        """Stop transfers and close their connections; those that end meanwhile are done as ever, the others not."""
        with self._lock:
            self._ended += transfers
            self._stir()

    def feed(self, transfer: Transfer, size_bytes: int) -> None:
        """Let a transfer that starved read on."""
        with self._lock:
            self._fed.append((transfer, size_bytes))
            self._stir()

    def figures(self) -> dict[str, float]:
        """Give how many transfers have a connection, and how many wait for one."""
        return {"active": self.active, "waiting": self.waiting}

    def alive(self) -> bool:
        """Say whether it takes transfers."""
        return not self._closed

    def close(self) -> None:
        """Stop what is under way, and the thread."""
        with self._lock:
            self._closed = True
            self._stir()
            thread = self._thread
        if thread is not None:
            thread.join(CLOSE_S)

    def _start(self) -> None:
        if self._thread is None:
            self._connections = _allowed(self._connections)
            self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._thread = threading.Thread(target=self._run, name="gaia-bulk", daemon=True)
            self._thread.start()

    def _stir(self) -> None:
        if self._wake >= 0:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        loop = _Loop(self._wake, self._connections, self._wait_s, Handles(self._judge, self._ca_file))
        new: list[Transfer] = []
        meters, used = metrics.meters(RequestMany.OPERATION), time.thread_time()
        try:
            while True:
                with self._lock:
                    new, self._inbox = self._inbox, []
                    ended, self._ended = self._ended, []
                    fed, self._fed = self._fed, []
                    if self._closed:
                        break
                loop.turn(new, ended, fed)
                new = []
                before, used = used, time.thread_time()
                meters.worked(used - before)
                self.active, self.waiting = len(loop.running), len(loop.backlog)
        except Exception:
            log.exception("the bulk engine failed; what it had under way ends, and the next request starts another one")
        with self._lock:
            new, self._inbox = new + self._inbox, []
            self._ended, self._fed, self._thread = [], [], None
            os.close(self._wake)
            self._wake = -1
        loop.close(new)
        self.active = self.waiting = 0


class _Loop:
    """What the thread owns."""

    def __init__(self, wake: int, connections: int, wait_s: float, handles: Handles) -> None:
        self._wake = wake
        self._connections = connections
        self._wait_s = wait_s
        self._handles = handles
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, connections)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._poll = select.epoll()
        self._poll.register(wake, select.EPOLLIN)
        self._watched: dict[int, int] = {}
        self._due_at: float | None = None
        self.running: dict[Any, Transfer] = {}
        self.backlog: deque[tuple[float, Transfer]] = deque()
        self._ended: list[Transfer] = []

    def turn(self, new: list[Transfer], ended: list[Transfer], fed: list[tuple[Transfer, int]]) -> None:
        """Take what is new, wait for something to happen, and hand out what is done."""
        now = time.monotonic()
        for each in ended:
            self._drop(each)
        for each, size_bytes in fed:
            each.allowed_bytes += size_bytes
            if each.handle in self.running:
                each.handle.pause(pycurl.PAUSE_CONT)
        self.backlog.extend((now + self._wait_s, each) for each in new)
        self._fill(now)
        self._act(self._poll.poll(self._patience_s(now), EVENTS))
        self._hand_out()

    def close(self, unstarted: list[Transfer]) -> None:
        """End everything."""
        # One that was just taken in may stand in two of them.
        left = list(
            dict.fromkeys((*self._ended, *self.running.values(), *(each for _, each in self.backlog), *unstarted))
        )
        for each in list(self.running.values()):
            self._drop(each)
        self._multi.close()
        self._poll.close()
        _stopped(left)

    def _fill(self, now: float) -> None:
        while self.backlog and len(self.running) < self._connections:
            _, transfer = self.backlog.popleft()
            if transfer.abandoned:
                continue
            handle = self._handles.take(transfer)
            self.running[handle] = transfer
            transfer.handle = handle
            self._multi.add_handle(handle)
        while self.backlog and self.backlog[0][0] <= now:
            _, transfer = self.backlog.popleft()
            if not transfer.abandoned:
                transfer.fail(PoolExhausted("bulk connections", self._connections, self._wait_s))
                self._ended.append(transfer)

    def _drop(self, transfer: Transfer) -> None:
        transfer.abandoned = True
        handle = transfer.handle
        if handle is not None and self.running.pop(handle, None) is not None:
            self._multi.remove_handle(handle)
            self._handles.give_back(transfer)

    def _patience_s(self, now: float) -> float:
        moments = [now + IDLE_S]
        if self._due_at is not None:
            moments.append(self._due_at)
        if self.backlog:
            moments.append(self.backlog[0][0])
        return max(0.0, min(moments) - now)

    def _act(self, events: list[tuple[int, int]]) -> None:
        if self._due_at is not None and time.monotonic() >= self._due_at:
            self._due_at = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        for fd, event in events:
            if fd == self._wake:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(fd)
                continue
            what = pycurl.CSELECT_OUT if event & select.EPOLLOUT else 0
            if event & (select.EPOLLIN | select.EPOLLHUP):
                what |= pycurl.CSELECT_IN
            if event & select.EPOLLERR:
                what |= pycurl.CSELECT_ERR
            self._multi.socket_action(fd, what)

    def _hand_out(self) -> None:
        left = 1
        while left:
            left, well, badly = self._multi.info_read()
            for handle in well:
                self._end(handle, 0, "")
            for handle, code, text in badly:
                self._end(handle, code, text)
        ended, self._ended = self._ended, []
        _hand_out(ended)

    def _end(self, handle: Any, code: int, text: str) -> None:
        transfer = self.running.pop(handle)
        self._ended.append(transfer)
        self._multi.remove_handle(handle)
        transfer.conclude(code, text)
        self._handles.give_back(transfer)

    def _watch(self, what: int, fd: int, _multi: object, _data: object) -> None:
        """Follow libcurl's wishes; a socket that it has closed left the poll by itself."""
        known = self._watched.get(fd)
        if what == pycurl.POLL_REMOVE:
            if self._watched.pop(fd, None) is not None:
                with contextlib.suppress(OSError):
                    self._poll.unregister(fd)
            return
        wanted = _WATCHED[what]
        if known is None:
            self._poll.register(fd, wanted)
        elif known != wanted:
            self._poll.modify(fd, wanted)
        self._watched[fd] = wanted

    def _set_timer(self, milliseconds: int) -> None:
        self._due_at = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000


def _hand_out(ended: Sequence[Transfer]) -> None:
    """Hand all that ended to whoever waits for them, together: each word to another thread costs a switch."""
    waiting: dict[Callable[[list[Transfer]], None], list[Transfer]] = defaultdict(list)
    for each in ended:
        waiting[each.done].append(each)
    for done, found in waiting.items():
        done(found)


def _stopped(transfers: Sequence[Transfer]) -> None:
    for each in transfers:
        if each.answer is None:
            each.fail(ConnectFailed(each.sent.host, "the worker is stopping"))
    _hand_out(transfers)


def _allowed(connections: int) -> int:
    """Raise the soft limit of open files for that many connections; give how many there may be."""
    soft = descriptors.raised(connections + SPARE_FILES)
    fits = max(1, min(connections, soft - SPARE_FILES))
    if fits < connections:
        log.warning("%d bulk connections instead of %d: the limit of open files is %d", fits, connections, soft)
    return fits
