"""Calls of the `api` queue: HTTP requests."""

import json
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final
from urllib.parse import urlsplit

from gaia.codec import Body
from gaia.contracts.base import URL_FORBIDDEN, Call, Result, RetryPolicy, contract, secret
from gaia.errors import GaiaError, Transient

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110 section 9.2.2: doing it again does no more."""

METHODS: Final = IDEMPOTENT | {"POST", "PATCH"}


@contract
class Response(Result):
    """What a server answered.

    `url` is the address that answered, after redirects. `headers` has lower-case names; a header sent several times
    is joined with ", " (`set-cookie` with a line feed, since its values hold commas). `attempts` counts the runs of
    the call, this one included.
    """

    status: int
    headers: Mapping[str, str] = secret("named")
    body: bytes = secret("body")
    url: str = secret("url")
    elapsed_s: float
    attempts: int = 1

    def text(self) -> str:
        """Decode the body by the charset of its content type, UTF-8 when none is named; bad bytes become U+FFFD."""
        charset = "utf-8"
        for part in self.headers.get("content-type", "").split(";")[1:]:
            name, _, value = part.strip().partition("=")
            if name.lower() == "charset":
                charset = value.strip("\"' ")
        try:
            return self.body.decode(charset, "replace")
        except (LookupError, ValueError):
            return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Parse the body as JSON.

        Raises:
            ValueError: if it is none.
        """
        return json.loads(self.body)


@contract
class Request(Call[Response], operation="api.request"):
    """Send one HTTP request and read the whole answer.

    Any status is an answer, not an error. At most one of `json`, `data` (form fields) and `body` (bytes) may be given.
    `timeout_s` bounds the whole exchange, redirects and body included; the call's deadline bounds it too.
    Methods that are idempotent (RFC 9110) are retried after a transient error, others never.
    """

    RETRY = RetryPolicy(attempts=3)

    url: str = secret("url")
    method: str = "GET"
    params: Mapping[str, str] = secret("named", default_factory=dict)
    headers: Mapping[str, str] = secret("named", default_factory=dict)
    json: Any = secret("body", default=None)
    data: Mapping[str, str] | None = secret("body", default=None)
    body: Body | None = secret("body", default=None)
    auth: tuple[str, str] | None = secret("all", default=None)
    timeout_s: float = 30.0
    max_redirects: int = 10
    max_body_bytes: int = 8 * 1024 * 1024
    verify: bool = field(default=True)

    def check(self) -> None:
        """Refuse what no server could be sent.

        Raises:
            InvalidCall: with the field's name.
        """
        self.require_text("url", forbidden=URL_FORBIDDEN)
        self.require("url", "must be an http or https URL with a host", holds=_is_http(self.url))
        self.require("method", f"must be one of {', '.join(sorted(METHODS))}", holds=self.method in METHODS)
        self.require_between("timeout_s", 0.001, 3600)
        self.require_between("max_redirects", 0, 50)
        self.require_between("max_body_bytes", 0, 64 * 1024 * 1024)
        bodies = [name for name in ("json", "data", "body") if getattr(self, name) is not None]
        self.require(bodies[-1] if bodies else "body", f"excludes {bodies[:-1]}", holds=len(bodies) < 2)  # noqa: PLR2004
        for name, value in self.headers.items():
            self.require("headers", f"{name!r} is no header name", holds=_is_token(name))
            self.require("headers", f"{name!r} must be text without CR, LF or NUL", holds=_is_field_value(value))

    def may_retry(self, error: GaiaError) -> bool:
        """Retry transient errors of idempotent methods."""
        return isinstance(error, Transient) and self.method in IDEMPOTENT


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _is_token(name: object) -> bool:
    """RFC 9110 section 5.6.2."""
    return (
        isinstance(name, str)
        and bool(name)
        and all(c.isascii() and (c.isalnum() or c in "!#$%&'*+-.^_`|~") for c in name)
    )


def _is_field_value(value: object) -> bool:
    return isinstance(value, str) and not any(c in value for c in "\r\n\0")
