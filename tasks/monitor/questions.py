"""Questions to Prometheus, handed on by the monitor for its page of dashboards.

Only queries, by GET, to the one address that the settings name. They are few at a time, so that a Prometheus that hangs
leaves places for probes and scrapes; time and size of an answer are bounded, and what is no answer is told in words.
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
"""Of the places that the monitor's pages have; the others stay free."""

BOUND_S: Final = 10.0
PLACE_BOUND_S: Final = 5.0
ANSWER_BYTES: Final = 8 * 1024 * 1024


class Questions:
    """Thread-safe."""

    def __init__(self, address: str) -> None:
        """Ask the Prometheus at an address."""
        self._address = address
        self._places = threading.BoundedSemaphore(AT_ONCE)

    def answer(self, asked: Asked) -> Page:
        """Give Prometheus' answer to one of `PATHS`, or a sentence in the form of its errors."""
        fields: dict[str, str] = {name: asked.query[name] for name in FIELDS if name in asked.query}
        if not fields.get("query") or len(fields["query"]) > QUERY_CHARACTERS:
            return _refused(HTTPStatus.BAD_REQUEST, f"a query of 1 to {QUERY_CHARACTERS} characters is needed")
        if not self._places.acquire(timeout=PLACE_BOUND_S):
            return _refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many questions at once, or Prometheus is slow")
        try:
            fields["timeout"] = f"{BOUND_S:g}s"
            return self._asked(f"{asked.path}?{urlencode(fields)}")
        finally:
            self._places.release()

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
