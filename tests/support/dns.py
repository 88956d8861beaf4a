"""A name server on a loopback port, whose zone a test writes."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset


class NameServer:
    """Answers what `records` holds, NXDOMAIN for other names; silent for names, or a name and a type, in `silent`.

    Names in `truncated` are answered by TCP alone, those in `garbled` with bytes of the test's own after the question.
    """

    def __init__(self) -> None:
        self.records: dict[str, list[str]] = {}
        self.rcodes: dict[str, dns.rcode.Rcode] = {}
        self.silent: set[str | tuple[str, str]] = set()
        self.truncated: set[str] = set()
        self.garbled: dict[str, bytes] = {}
        self.later: dict[tuple[str, str], list[str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.open = threading.Event()
        self.open.set()
        self._listener = self._bind()
        self._threads = [threading.Thread(target=self._serve), threading.Thread(target=self._accept)]

    def _bind(self) -> socket.socket:
        """Take a port of UDP that is free for TCP, too."""
        for _ in range(50):
            self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._sock.bind(("127.0.0.1", 0))
            try:
                return socket.create_server(self._sock.getsockname())
            except OSError:
                self._sock.close()
        raise OSError("no port is free for UDP and TCP")

    @property
    def address(self) -> str:
        host, port = self._sock.getsockname()
        return f"{host}:{port}"

    def add(self, *lines: str) -> None:
        """Put records into the zone, as `www.test. 60 IN A 192.0.2.1`."""
        for line in lines:
            self.records.setdefault(line.split()[0], []).append(line)

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open.set()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._sock.getsockname())
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for each in self._threads:
            each.join(10)
        self._listener.close()
        self._sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock, suppress(OSError, EOFError):
                sock.settimeout(5)
                query = dns.query.receive_tcp(sock)[0]
                name, kind = str(query.question[0].name).lower(), query.question[0].rdtype.name
                self.asked.append((name, f"{kind} by tcp"))
                dns.query.send_tcp(sock, self._answer(query, name, kind))

    def _serve(self) -> None:
        while True:
            wire, client = self._sock.recvfrom(4096)
            if not wire:
                return
            query = dns.message.from_wire(wire)
            name, kind = str(query.question[0].name).lower(), query.question[0].rdtype.name
            self.asked.append((name, kind))
            self.open.wait(10)
            if name in self.garbled:
                end = wire.index(b"\0", 12) + 5
                self._sock.sendto(
                    wire[:2] + b"\x81\x80" + wire[4:6] + self.garbled[name][:6] + wire[12:end] + self.garbled[name][6:],
                    client,
                )
            elif self.silent.isdisjoint((name, (name, kind))):
                answer = self._answer(query, name, kind)
                if name in self.truncated:
                    answer.flags |= dns.flags.TC
                    answer.answer.clear()
                self._sock.sendto(answer.to_wire(), client)
                # What the zone says once this question is answered: an attacker's server changes its mind.
                self.records[name] = self.later.pop((name, kind), self.records.get(name, []))

    def _answer(self, query: dns.message.Message, name: str, kind: str) -> dns.message.Message:
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        answer.set_rcode(self.rcodes.get(name, dns.rcode.NOERROR if name in self.records else dns.rcode.NXDOMAIN))
        for _ in range(20):  # an alias may lead to itself
            following = ""
            for line in self.records.get(name, ()):
                _, ttl, _, sort, value = line.split(None, 4)
                if sort in {kind, "CNAME"}:
                    answer.answer.append(dns.rrset.from_text(name, int(ttl), "IN", sort, value))
                    following = value if sort == "CNAME" else ""
            name = following
        return answer
