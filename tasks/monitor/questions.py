"""Questions to Prometheus, handed on by the monitor for its page of dashboards.

Only queries, by GET, to the one address that the settings name. Few are asked and few wait, and others are refused at
once, so that a Prometheus that hangs leaves places for probes and scrapes: each holds one of the places that the pages
have (`tasks.monitor.monitor.AT_ONCE`). Time and size of an answer are bounded, and what is no answer is told in words.
"""

import json
import threading
from http import HTTPStatus
from http.client import HTTPException
from typing import Final
from urllib.parse import urlencode

from tasks.monitor import asking
from tasks.runtime.pages import JSON, Asked, Page

PATHS: Final = frozenset({"/api/v1/query", "/api/v1/query_range"})

FIELDS: Final = ("query", "time", "start", "end", "step")
QUERY_CHARACTERS: Final = 8192

AT_ONCE: Final = 6
WAITING: Final = 4
"""Together ten of the places that the monitor's pages have; a page of dashboards asks four at once."""

BOUND_S: Final = 10.0
PLACE_BOUND_S: Final = 5.0
"""So long one waits for its turn."""

ANSWER_BYTES: Final = 8 * 1024 * 1024

CROWDED: Final = "too many questions at once, or Prometheus is slow"


class Questions:
    """Thread-safe."""

    def __init__(self, address: str) -> None:
        """Ask the Prometheus at an address."""
        self._address = address
        self._admitted = threading.BoundedSemaphore(AT_ONCE + WAITING)
        self._asking = threading.BoundedSemaphore(AT_ONCE)

    def answer(self, asked: Asked) -> Page:
        """Give Prometheus' answer to one of `PATHS`, or a sentence in the form of its errors."""
        fields: dict[str, str] = {name: asked.query[name] for name in FIELDS if name in asked.query}
        if not fields.get("query") or len(fields["query"]) > QUERY_CHARACTERS:
            return _refused(HTTPStatus.BAD_REQUEST, f"a query of 1 to {QUERY_CHARACTERS} characters is needed")
        fields["timeout"] = f"{BOUND_S:g}s"
        if not self._admitted.acquire(blocking=False):
            return _refused(HTTPStatus.SERVICE_UNAVAILABLE, CROWDED)
        try:
            return self._in_turn(f"{asked.path}?{urlencode(fields)}")
        finally:
            self._admitted.release()

    def _in_turn(self, path: str) -> Page:
        if not self._asking.acquire(timeout=PLACE_BOUND_S):
            return _refused(HTTPStatus.SERVICE_UNAVAILABLE, CROWDED)
        try:
            return self._asked(path)
        finally:
            self._asking.release()

    def _asked(self, path: str) -> Page:
        who = f"Prometheus at {self._address}"
        try:
            found = asking.page(self._address, path, bound_s=BOUND_S, most_bytes=ANSWER_BYTES)
            said = json.loads(found.body)
        except TimeoutError:
            return _refused(HTTPStatus.GATEWAY_TIMEOUT, f"{who} gave no answer within {BOUND_S:g} s")
        except OSError as failure:
            return _refused(HTTPStatus.BAD_GATEWAY, f"{who} cannot be reached: {failure.strerror or failure}")
        except (HTTPException, ValueError, RecursionError):
            return _refused(HTTPStatus.BAD_GATEWAY, f"what answers at {self._address} is no Prometheus")
        if not isinstance(said, dict) or said.get("status") not in {"success", "error"}:
            return _refused(HTTPStatus.BAD_GATEWAY, f"what answers at {self._address} is no Prometheus")
        return Page(found.body, found.status, JSON)


def _refused(status: int, text: str) -> Page:
    return Page.of({"status": "error", "errorType": "gaia", "error": text}, status)
