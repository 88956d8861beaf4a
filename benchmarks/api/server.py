"""A web server that answers every GET after a pause, and counts how many it has at once.

`python server.py PAUSE_S` prints its port. One process, one thread, no framework: answers leave in the order in which
requests came, since all wait equally long. Asked for by the benchmark alone, and answered at once: `/told` gives the
counts as JSON, `/reset` sets them to zero, `/until?N` answers when N requests were answered since.
"""

import contextlib
import json
import select
import socket
import sys
import time
from collections import deque
from typing import Final

BODY: Final = b"x" * 1024
ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n" + BODY
BACKLOG: Final = 4096
EVENTS: Final = 1024


class Server:
    """Requests that wait, the oldest first, and what was counted."""

    def __init__(self, pause_s: float) -> None:
        """Listen on a free port of loopback."""
        self._pause_s = pause_s
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self._listener.settimeout(0.0)
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)
        self._open: dict[int, socket.socket] = {}
        self._waiting: deque[tuple[float, socket.socket]] = deque()
        self._until: list[tuple[int, socket.socket]] = []
        self._reset()
        self.port: int = self._listener.getsockname()[1]

    def run(self) -> None:
        """Serve for ever."""
        while True:
            patience = -1.0
            if self._waiting:
                patience = max(0.0, self._waiting[0][0] - time.monotonic())
            for fd, _ in self._poll.poll(patience, EVENTS):
                if fd in self._open:
                    self._read(fd)
                else:
                    self._accept()
            self._answer()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self._listener.accept()
                sock.settimeout(0.0)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open[sock.fileno()] = sock
                self._poll.register(sock, select.EPOLLIN)
                self._connections = max(self._connections, len(self._open))

    def _read(self, fd: int) -> None:
        sock = self._open[fd]
        try:
            asked = sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            asked = b""
        if not asked:
            del self._open[fd]
            sock.close()  # which takes it off the poll
            return
        # No client here sends a second request before it has the answer, nor one larger than a read.
        if asked.startswith((b"GET /told", b"GET /reset", b"GET /until")):
            self._tell(asked.split(None, 2)[1].decode(), sock)
            return
        now = time.monotonic()
        self._waiting.append((now + self._pause_s, sock))
        self._asked += 1
        self._most = max(self._most, len(self._waiting))
        self._first = self._first or now

    def _answer(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, sock = self._waiting.popleft()
            with contextlib.suppress(OSError):  # it has left
                sock.send(ANSWER)
            self._answered += 1
        for each in [each for each in self._until if each[0] <= self._answered]:
            self._until.remove(each)
            self._say(each[1])

    def _tell(self, target: str, sock: socket.socket) -> None:
        if target.startswith("/until"):
            self._until.append((int(target.partition("?")[2]), sock))
            return
        if target == "/reset":
            self._reset()
        self._say(sock)

    def _reset(self) -> None:
        self._asked = self._answered = self._most = 0
        self._connections = len(self._open)
        self._first = 0.0
        self._cpu_s = time.process_time()

    def _say(self, sock: socket.socket) -> None:
        told = {
            "asked": self._asked,
            "answered": self._answered,
            "most_at_once": self._most,
            "connections": self._connections,
            "seconds": time.monotonic() - self._first if self._first else 0.0,
            "cpu_s": time.process_time() - self._cpu_s,
        }
        body = json.dumps(told).encode()
        sock.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


if __name__ == "__main__":
    server = Server(float(sys.argv[1]))
    print(server.port, flush=True)
    server.run()
