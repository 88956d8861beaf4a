"""A name server on a loopback port, whose zone a test writes."""

import socket
import threading
from types import TracebackType
from typing import Self

import dns.flags
import dns.message
import dns.rcode
import dns.rrset


class NameServer:
    """Answers what `records` holds, NXDOMAIN for other names; silent for names in `silent`."""

    def __init__(self) -> None:
        self.records: dict[str, list[str]] = {}
        self.rcodes: dict[str, dns.rcode.Rcode] = {}
        self.silent: set[str] = set()
        self.later: dict[tuple[str, str], list[str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.open = threading.Event()
        self.open.set()
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    @property
    def address(self) -> str:
        host, port = self._sock.getsockname()
        return f"{host}:{port}"

    def add(self, *lines: str) -> None:
        """Put records into the zone, as `www.test. 60 IN A 192.0.2.1`."""
        for line in lines:
            self.records.setdefault(line.split()[0], []).append(line)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open.set()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._sock.getsockname())
        self._thread.join(10)
        self._sock.close()

    def _serve(self) -> None:
        while True:
            wire, client = self._sock.recvfrom(4096)
            if not wire:
                return
            query = dns.message.from_wire(wire)
            name, kind = str(query.question[0].name).lower(), query.question[0].rdtype.name
            self.asked.append((name, kind))
            self.open.wait(10)
            if name not in self.silent:
                self._sock.sendto(self._answer(query, name, kind).to_wire(), client)
                # What the zone says once this question is answered: an attacker's server changes its mind.
                self.records[name] = self.later.pop((name, kind), self.records.get(name, []))

    def _answer(self, query: dns.message.Message, name: str, kind: str) -> dns.message.Message:
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        answer.set_rcode(self.rcodes.get(name, dns.rcode.NOERROR if name in self.records else dns.rcode.NXDOMAIN))
        while name:
            following = ""
            for line in self.records.get(name, ()):
                _, ttl, _, sort, value = line.split()
                if sort in {kind, "CNAME"}:
                    answer.answer.append(dns.rrset.from_text(name, int(ttl), "IN", sort, value))
                    following = value if sort == "CNAME" else ""
            name = following
        return answer
