"""Calls of the `api` queue: HTTP requests."""

import json
import re
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from gaia.codec import Artifact, Body
from gaia.contracts.base import URL_FORBIDDEN, Call, Result, RetryPolicy, contract, secret
from gaia.errors import GaiaError, Transient
from gaia.outcome import Outcome

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110 section 9.2.2: doing it again does no more."""

METHODS: Final = IDEMPOTENT | {"POST", "PATCH"}

BUSY: Final = (429, 502, 503, 504)
"""Statuses that say nothing of the request, only that the server cannot answer it now."""

MOST_CALLS: Final = 1000
"""Requests in one `RequestMany`, and how many of them may be under way at once."""

MOST_ATTEMPTS: Final = 20
MOST_PAUSE_S: Final = 3600
ERRORS: Final = range(400, 600)

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110 section 5.6.2."""

DOWNLOAD_LIMIT_BYTES: Final = 1024**4


@contract
class Retry(Result):
    """When a request is sent again: after a transient error, or an answer with one of `statuses`.

    Full jitter: before attempt n+1 a time drawn evenly from 0 to min(`cap_s`, `base_s` * 2**(n-1)), or as long as the
    server asks in `Retry-After` if that is more. Methods that are not idempotent (RFC 9110 section 9.2.2) are sent
    again only with `any_method`. Each host has a budget of retries besides; when that is used up, the answer or error
    stands.
    """

    attempts: int = 3
    base_s: float = 0.5
    cap_s: float = 30.0
    statuses: tuple[int, ...] = BUSY
    any_method: bool = False

    def check(self, call: "Call[Any]") -> None:
        """Check the bounds, for a call.

        Raises:
            InvalidCall: for its field `retry`.
        """
        numbers = (self.base_s, self.cap_s)
        fits = isinstance(self.attempts, int) and 1 <= self.attempts <= MOST_ATTEMPTS
        call.require("retry", f"must have 1 to {MOST_ATTEMPTS} attempts", holds=fits)
        call.require(
            "retry", f"must pause from 0 to {MOST_PAUSE_S} s", holds=all(0 <= x <= MOST_PAUSE_S for x in numbers)
        )
        errors = all(each in ERRORS for each in self.statuses)
        call.require("retry", "must name statuses from 400 to 599", holds=errors)

    def policy(self) -> RetryPolicy:
        """Give attempts and pauses."""
        return RetryPolicy(self.attempts, self.base_s, self.cap_s)

    def allows(self, method: str) -> bool:
        """Say whether a request of that method may be sent again."""
        return self.any_method or method in IDEMPOTENT


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

    Any status is an answer, not an error; one that `retry` names is the answer once no attempt is left. At most one of
    `json`, `data` (form fields) and `body` (bytes) may be given. `timeout_s` bounds an attempt, redirects and body
    included; the call's deadline bounds all of them. `proxy` is a name that the workers' settings know. `tenant`
    names whose limits hold besides those of the host and the cluster, as `key:<tenant>`.
    """

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
    proxy: str | None = None
    retry: Retry = Retry()
    tenant: str | None = None

    def check(self) -> None:
        """Refuse what no server could be sent.

        Raises:
            InvalidCall: with the field's name.
        """
        self.require("method", f"must be one of {', '.join(sorted(METHODS))}", holds=self.method in METHODS)
        self.require_between("max_body_bytes", 0, 64 * 1024 * 1024)
        self.require_between("timeout_s", 0.001, 3600)
        _check_common(self)
        bodies = [name for name in ("json", "data", "body") if getattr(self, name) is not None]
        self.require(bodies[-1] if bodies else "body", f"excludes {bodies[:-1]}", holds=len(bodies) < 2)  # noqa: PLR2004

    def retries(self) -> RetryPolicy:
        """Give what `retry` says."""
        return self.retry.policy()

    def may_retry(self, error: GaiaError) -> bool:
        """Retry transient errors, of the methods that `retry` allows."""
        return isinstance(error, Transient) and self.retry.allows(self.method)


@contract
class Outcomes(Result):
    """What became of each request, in the order of the calls; see `gaia.outcome.Outcome`."""

    items: tuple[Outcome[Response], ...]


@contract
class RequestMany(Call[Outcomes], operation="api.request_many"):
    """Send up to 1000 requests in one message, `concurrency` at a time.

    Each has its own outcome: one that fails fails no other. They wait for limits and are retried inside the batch, as
    their `retry` says, until the deadline of the call; one that is still kept out by a limit then is `LimitExceeded`.
    If the worker is lost, all of them are sent again. Bodies together are bounded by the worker's
    `GAIA_API__BATCH_BYTES`; what would go beyond is `BodyTooLarge`.
    """

    calls: tuple[Request, ...]
    concurrency: int = 100

    def check(self) -> None:
        """Check the numbers; each request has checked itself."""
        self.require("calls", f"must have 1 to {MOST_CALLS} requests", holds=0 < len(self.calls) <= MOST_CALLS)
        self.require("calls", "must be requests", holds=all(isinstance(each, Request) for each in self.calls))
        self.require_between("concurrency", 1, MOST_CALLS)


@contract
class Downloaded(Result):
    """A body that was stored. `resumed` counts how often it went on after a break."""

    artifact: Artifact
    status: int
    headers: Mapping[str, str] = secret("named")
    url: str = secret("url")
    size_bytes: int
    sha256: str
    elapsed_s: float
    resumed: int = 0


@contract
class Download(Call[Downloaded], operation="api.download"):
    """Store what a GET brings as an artifact, a chunk at a time, with progress in bytes; read it with `Gaia.open`.

    A connection that breaks is taken up again where it broke (`Range`, with `If-Range`), if the server can do that, as
    often as `retry` allows; a server that cannot is asked for the whole anew. `idle_s` bounds the wait for the next
    bytes, the call's deadline the whole. A body of another checksum than `sha256` is `ChecksumMismatch`, and not
    stored. A status that is no success is `BadStatus`, or `ServerBusy` if another try may help.
    """

    url: str = secret("url")
    params: Mapping[str, str] = secret("named", default_factory=dict)
    headers: Mapping[str, str] = secret("named", default_factory=dict)
    auth: tuple[str, str] | None = secret("all", default=None)
    idle_s: float = 30.0
    max_redirects: int = 10
    max_bytes: int = 1024**3
    sha256: str | None = None
    verify: bool = field(default=True)
    proxy: str | None = None
    retry: Retry = Retry()
    tenant: str | None = None

    def check(self) -> None:
        """Refuse what no server could be sent.

        Raises:
            InvalidCall: with the field's name.
        """
        self.require_between("max_bytes", 0, DOWNLOAD_LIMIT_BYTES)
        self.require_between("idle_s", 0.001, 3600)
        _check_common(self)
        given = {name.lower() for name in self.headers} & {"range", "if-range", "accept-encoding"}
        self.require("headers", f"{', '.join(sorted(given))} is set by Gaia alone", holds=not given)
        digest = self.sha256 is None or (len(self.sha256) == 64 and set(self.sha256) <= set("0123456789abcdef"))  # noqa: PLR2004 - SHA-256 in hexadecimal
        self.require("sha256", "must be 64 hexadecimal digits in lower case", holds=digest)

    def retries(self) -> RetryPolicy:
        """Give what `retry` says."""
        return self.retry.policy()

    def request(self) -> Request:
        """Give the request that asks for the body."""
        fields = {**self.headers, "Accept-Encoding": "identity"}
        return Request(
            url=self.url,
            params=self.params,
            headers=fields,
            auth=self.auth,
            timeout_s=self.idle_s,
            max_redirects=self.max_redirects,
            verify=self.verify,
            proxy=self.proxy,
            retry=self.retry,
            tenant=self.tenant,
        )


@contract
class ApiStats(Result):
    """Counters since the worker started, and gauges, of one worker.

    `requests` counts exchanges with servers, retries and hops of redirects included; `succeeded` those answered with a
    status under 500. `limited` counts how often a limit or a circuit kept one from being sent. `seconds` are quantiles
    of the last exchanges, from the first byte sent to the last byte read.
    """

    worker: str
    requests: int
    succeeded: int
    failed: int
    limited: int
    retried: int
    resumed: int
    redirected: int
    received_bytes: int
    statuses: Mapping[str, int]
    errors: Mapping[str, int]
    seconds: Mapping[str, float]
    active: int
    peak_active: int
    connections: int
    idle_connections: int
    bulk_active: int
    bulk_waiting: int


@contract
class Stats(Call[ApiStats], operation="api.stats"):
    """Give the counters of the worker that takes the call."""


@contract
class ApiHealth(Result):
    """How the worker is; `findings` say why it is not healthy.

    `degraded`: it works, with less than it could: its sessions are all busy, or circuits are open. `unhealthy`: it can
    send nothing.
    """

    worker: str
    status: Literal["healthy", "degraded", "unhealthy"]
    findings: tuple[str, ...]
    circuits: Mapping[str, int]


@contract
class Health(Call[ApiHealth], operation="api.health"):
    """Say how the worker that takes the call is."""


def _check_common(call: Request | Download) -> None:
    """Check what a request and a download share."""
    call.require_text("url", forbidden=URL_FORBIDDEN)
    call.require("url", "must be an http or https URL with a host", holds=_is_http(call.url))
    call.require_between("max_redirects", 0, 50)
    for name, value in call.headers.items():
        if not _is_token(name):
            raise call.refuse("headers", f"{name!r} is no header name")
        if not _is_field_value(value):
            raise call.refuse("headers", f"{name!r} must be text without CR, LF or NUL")
    call.retry.check(call)
    for name in ("proxy", "tenant"):
        if getattr(call, name) is not None:
            call.require_text(name, limit=200, forbidden=URL_FORBIDDEN)


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _is_token(name: object) -> bool:
    return isinstance(name, str) and _TOKEN.fullmatch(name) is not None


def _is_field_value(value: object) -> bool:
    return isinstance(value, str) and not any(c in value for c in "\r\n\0")
