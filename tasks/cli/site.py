"""A small web site on loopback, so that the demo needs no internet."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

SLOW_S: Final = 0.3

_PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Gaia demo</title>
<style>body{font:24px sans-serif;margin:0;padding:48px;color:#fff;background:#14532d}h1{font-size:64px}</style>
<h1>Gaia was here</h1><p>This page was drawn by a real browser, in a worker, for somebody who only enqueued a call.</p>
<p id="when"></p><script>document.getElementById("when").textContent = "Scripts run: " + 6 * 7;</script></html>"""

PAGES: Final[dict[str, tuple[int, str, str]]] = {
    "/page": (200, "text/html; charset=utf-8", _PAGE),
    "/json": (200, "application/json", json.dumps({"name": "gaia", "numbers": list(range(200))})),
    "/slow": (200, "text/plain; charset=utf-8", "worth the wait\n"),
    "/missing": (404, "text/plain; charset=utf-8", "no such page\n"),
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/slow":
            threading.Event().wait(SLOW_S)
        status, kind, text = PAGES.get(self.path, PAGES["/missing"])
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""


class Site:
    """A server in a thread, while the `with` block lasts."""

    def __init__(self) -> None:
        """Listen on a free port."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        # A browser keeps connections open; their threads end with the process.
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port: Final = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def url(self, path: str) -> str:
        """Give the address of a page."""
        return f"http://127.0.0.1:{self.port}{path}"

    def __enter__(self) -> Self:
        """Serve."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
