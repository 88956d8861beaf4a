"""What the scenes meet outside the cluster: a web site, a zone of names, a directory."""

import json
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.dns import NameServer
from tests.support.web import Asked, Site, reply

HANG_S = 3.0
"""A server that says nothing hangs up by itself, so that few of its threads wait at once."""

PAGE = b"""<!doctype html><title>Soak</title><style>body{background:#14532d;color:#fff}</style><h1>Here</h1>
<input id=name><button id=go onclick="out.textContent = document.getElementById('name').value">go</button>
<p id=out></p><script>document.cookie = "seen=yes"; localStorage.x = "y"; console.log("said");</script>"""
BIG_BYTES = 300_000
LARGE_BYTES = 10 * 1024 * 1024
"""Over 8 MiB: such a body goes to the directory of artifacts."""

PROGRAMS = ("/bin/sh", "/bin/cat", "/bin/sleep")


class Scenery:
    def __init__(self, site: Site, zone: NameServer, directory: Path) -> None:
        self.site = site
        self.zone = zone
        self.directory = directory
        self.files = directory / "files"
        self._shown: set[str] = set()
        html = "Content-Type: text/html"
        self.site.routes |= {
            "/": reply(PAGE, 200, html),
            "/json": reply(json.dumps({"numbers": list(range(200))}).encode(), 200, "Content-Type: application/json"),
            "/big": reply(secrets.token_bytes(BIG_BYTES)),
            "/large": reply(b"x" * LARGE_BYTES),
            "/away": reply(b"", 302, f"Location: {site.url('/json')}"),
            "/hang": self._hang,
            "/drip": self._drip,
            "/broken": self._broken,
            "/flaky": self._flaky,
        }

    def settings(self) -> dict[str, str]:
        return {
            "GAIA_EGRESS__ALLOW_CIDRS": '["127.0.0.1/32"]',
            "GAIA_NETWORK__NAMESERVERS": json.dumps([self.zone.address]),
            "GAIA_NETWORK__PROBE_PORTS": '["1-65535"]',
            "GAIA_FILES__ROOTS": json.dumps({"data": str(self.files)}),
            "GAIA_PROCESS__EXECUTABLES": json.dumps(PROGRAMS),
        }

    @contextmanager
    def host(self, number: int) -> Iterator[str]:
        """Have a host of a name that nobody asked for before."""
        name = f"h{number}.test"
        self.zone.add(f"{name}. 1 IN A 127.0.0.1")
        try:
            yield name
        finally:
            self.zone.records.pop(f"{name}.", None)

    def _hang(self, asked: Asked, sock: socket.socket) -> None:
        self.site.stopped.wait(HANG_S)

    def _drip(self, asked: Asked, sock: socket.socket) -> None:
        """Send what goes to the directory of artifacts, and never its last byte."""
        sock.sendall(b"HTTP/1.1 200 Said\r\nContent-Length: %d\r\n\r\n" % (LARGE_BYTES + 1) + b"x" * LARGE_BYTES)
        self.site.stopped.wait(HANG_S)

    def _broken(self, asked: Asked, sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 Said\r\nContent-Length: 1000\r\n\r\nonly so much")

    def _flaky(self, asked: Asked, sock: socket.socket) -> bytes:
        """Be busy at the first request of each address."""
        if asked.target in self._shown:
            self._shown.discard(asked.target)
            return reply(b"at last")
        self._shown.add(asked.target)
        return reply(b"", 503)


@contextmanager
def scenery(directory: Path) -> Iterator[Scenery]:
    (directory / "files").mkdir()
    with Site() as site, NameServer() as zone:
        zone.add("www.test. 5 IN A 127.0.0.1", "www.test. 5 IN MX 10 mail.test.", "mail.test. 5 IN A 192.0.2.9")
        zone.silent.add("silent.test.")
        yield Scenery(site, zone, directory)
