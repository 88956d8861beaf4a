"""Calls of the `network` queue: names, bandwidth, connections and reachability."""

import re
from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import urlsplit

from gaia.contracts.base import URL_FORBIDDEN, Call, Result, RetryPolicy, contract, secret
from gaia.levels import is_name, level_of
from gaia.outcome import Outcome

NAME_LIMIT = 253
"""RFC 1035 section 2.3.4: 255 octets on the wire."""

NAMES_LIMIT = 10_000
SERVERS_LIMIT = 8
SIZE_LIMIT_BYTES = 2**40

NAME_FORBIDDEN: Final = ("\0", " ", "/", "\n", "\r")

RecordType = Literal["A", "AAAA", "CNAME", "MX", "TXT", "SRV", "NS", "CAA", "PTR", "SOA"]

_FORMS: Final = {
    "host": "must be a host name or address in lower case, without scheme and port",
    "key": "must be of up to 200 visible ASCII characters",
    "job": "must be of up to 200 visible ASCII characters",
}

_LEASE: Final = re.compile(r"([0-9a-f]{16})@([^@]{1,253})")


@contract
class Resolved(Result):
    """The records of a name, in the order of the answer.

    `addresses` of the types A and AAAA, `records` of the others, in the presentation form of their RFCs, as
    "10 mail.example.com.". `ttl_s` is how long the answer may still be kept. `cached` tells that no server was asked
    for it this time, `stale` that its time is over and it is being asked for anew.
    """

    name: str
    type: str
    addresses: tuple[str, ...]
    ttl_s: float
    cached: bool
    records: tuple[str, ...] = ()
    stale: bool = False


@contract
class Resolve(Call[Resolved], operation="network.resolve"):
    """Look a name up: the worker's hosts file first, then its cache, the cluster's, and its name servers.

    For PTR the name may be an address. `servers` (`address`, `address:port` or `[address]:port`) are asked in place of
    all of these; they are judged like any dial.
    """

    RETRY = RetryPolicy(attempts=3)

    name: str
    type: RecordType = "A"
    timeout_s: float = 5.0
    servers: tuple[str, ...] = ()

    def check(self) -> None:
        """Check the name and the bound."""
        self.require_text("name", limit=NAME_LIMIT, forbidden=NAME_FORBIDDEN)
        self.require_between("timeout_s", 0.001, 60)
        self.require("servers", f"must name at most {SERVERS_LIMIT} servers", holds=len(self.servers) <= SERVERS_LIMIT)
        for each in self.servers:
            self.require("servers", "must each have 1 to 64 characters", holds=0 < len(each) <= 64)  # noqa: PLR2004 - longer than any address


@contract
class Resolutions(Result):
    """What became of each name, in order: a `Resolved`, or the error that `Resolve` would have raised."""

    items: tuple[Outcome[Resolved], ...]


@contract
class ResolveMany(Call[Resolutions], operation="network.resolve_many"):
    """Look many names up at once, each as `Resolve` does; what is not there after `timeout_s` failed."""

    names: tuple[str, ...]
    type: RecordType = "A"
    timeout_s: float = 30.0

    def check(self) -> None:
        """Check the number of names and the bound; a name that is none is an outcome."""
        self.require("names", f"must hold at most {NAMES_LIMIT} names", holds=len(self.names) <= NAMES_LIMIT)
        self.require_between("timeout_s", 0.001, 600)


@contract
class Flushed(Result):
    """How many answers the worker had that answered."""

    names: int


@contract
class FlushDns(Call[Flushed], operation="network.flush_dns"):
    """Forget every answer of name servers, in all workers within a second."""

    RETRY = RetryPolicy(attempts=3)


@contract
class Throttled(Result):
    """The bytes may have moved by now; `waited_s` is what that took."""

    size_bytes: int
    waited_s: float


@contract
class Throttle(Call[Throttled], operation="network.throttle"):
    """Wait until so many bytes may have moved, within the bandwidth of the cluster, the host, the key and the job.

    Set by `gaia limits set NAME --bytes-per-s N`, where NAME is `global`, the host, `key:<key>` or `job:<job>`. What
    the bandwidth alone makes longer than `timeout_s` is refused at once (`LimitExceeded`), and nothing is taken. What
    others keep from being done in time is refused then; what it had by then is spent.
    """

    size_bytes: int
    host: str | None = None
    key: str | None = secret("all", default=None)
    job: str | None = None
    timeout_s: float = 60.0

    def check(self) -> None:
        """Check the number of bytes and the names."""
        self.require_between("size_bytes", 1, SIZE_LIMIT_BYTES)
        self.require_between("timeout_s", 0.001, 3600)
        for field in ("host", "key", "job"):
            value = getattr(self, field)
            if value is not None:
                self.require_text(field, limit=NAME_LIMIT)
                sound = _is_host(value) if field == "host" else is_name(f"{field}:{value}")
                self.require(field, _FORMS[field], holds=sound)


@contract
class Connection(Result):
    """A slot for one connection to a host; `lease` gives it back. It lapses `ttl_s` after it was given."""

    lease: str
    host: str
    ttl_s: float


@contract
class AcquireConnection(Call[Connection], operation="network.acquire_connection"):
    """Take one of the slots for connections to a host, and one of the cluster's.

    Where none is free within `timeout_s` it is `LimitExceeded`. A holder that dies has its slot until `ttl_s` is over.
    """

    host: str
    ttl_s: float = 60.0
    timeout_s: float = 0.25

    def check(self) -> None:
        """Check the host and the times."""
        self.require_text("host", limit=NAME_LIMIT, forbidden=NAME_FORBIDDEN)
        self.require("host", _FORMS["host"], holds=_is_host(self.host))
        self.require_between("ttl_s", 1, 86_400)
        self.require_between("timeout_s", 0.001, 60)


@contract
class Released(Result):
    """The slot of that host is free."""

    host: str


@contract
class ReleaseConnection(Call[Released], operation="network.release_connection"):
    """Give a connection's slot back; one that lapsed or was given back before is `LeaseLost`."""

    lease: str

    def check(self) -> None:
        """Check the form."""
        found = _LEASE.fullmatch(self.lease)
        self.require(
            "lease",
            "must be the lease of a `Connection`, as it was given",
            holds=found is not None and _is_host(found[2]),
        )

    def parts(self) -> tuple[str, str]:
        """Give the lease's id and its host."""
        identifier, _, host = self.lease.partition("@")
        return identifier, host


@contract
class TcpProbed(Result):
    """A connection was made, and closed; where to, and how long the look-up and the connecting took."""

    host: str
    port: int
    address: str
    dns_s: float
    connect_s: float


@contract
class ProbeTcp(Call[TcpProbed], operation="network.probe_tcp"):
    """Connect to a port. Only ports of `GAIA_NETWORK__PROBE_PORTS` may be probed, at addresses that may be dialled."""

    host: str
    port: int
    timeout_s: float = 5.0

    def check(self) -> None:
        """Check the endpoint."""
        _check_endpoint(self)


@contract
class Certificate(Result):
    """One certificate of a chain; times are seconds since the epoch, names and the serial as OpenSSL writes them."""

    subject: str
    issuer: str
    serial: str
    names: tuple[str, ...]
    not_before_s: float
    not_after_s: float
    sha256: str


@contract
class TlsProbed(Result):
    """What a TLS server showed.

    `verified` says whether chain and name are good; `reason` is why not, and then the rest is of a second handshake,
    without verification. `alpn` is "" if the server chose none of the protocols that were offered. `expires_in_s` is of
    the server's own certificate, the first of the chain; negative if it has expired.
    """

    host: str
    port: int
    address: str
    protocol: str
    cipher: str
    alpn: str
    verified: bool
    reason: str
    expires_in_s: float
    chain: tuple[Certificate, ...]
    dns_s: float
    connect_s: float
    tls_s: float


@contract
class ProbeTls(Call[TlsProbed], operation="network.probe_tls"):
    """Make a TLS handshake and tell about it; that the certificate is bad is an answer, no error."""

    host: str
    port: int = 443
    server_name: str | None = None
    alpn: tuple[str, ...] = ("h2", "http/1.1")
    timeout_s: float = 10.0

    def check(self) -> None:
        """Check the endpoint and the protocols."""
        _check_endpoint(self)
        if self.server_name is not None:
            self.require_text("server_name", limit=NAME_LIMIT, forbidden=NAME_FORBIDDEN)
        self.require(
            "alpn", "must hold at most 16 protocols of 1 to 255 ASCII characters each", holds=_is_alpn(self.alpn)
        )


@contract
class HttpProbed(Result):
    """An answer and the phases that led to it; `tls_s` is 0 for http.

    `first_byte_s` is from the request's sending to the first byte of the answer, `total_s` everything from the look-up
    to the last byte that was read. `size_bytes` of the body were read, at most 1 MiB.
    """

    url: str = secret("url")
    status: int
    address: str
    dns_s: float
    connect_s: float
    tls_s: float
    first_byte_s: float
    total_s: float
    size_bytes: int
    truncated: bool = False


@contract
class ProbeHttp(Call[HttpProbed], operation="network.probe_http"):
    """Send one request over a fresh connection and time its phases. A redirect is an answer, and not followed."""

    url: str = secret("url")
    method: Literal["GET", "HEAD"] = "GET"
    headers: Mapping[str, str] = secret("named", default_factory=dict)
    verify: bool = True
    timeout_s: float = 10.0

    def check(self) -> None:
        """Check the URL and the headers."""
        self.require_text("url", forbidden=URL_FORBIDDEN)
        self.require("url", "must be an http or https URL with a host, without user-info", holds=_is_http(self.url))
        self.require_between("timeout_s", 0.001, 300)
        for name, value in self.headers.items():
            sound = re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) and not re.search(r"[\r\n\0]", value)
            sound = sound and name.lower() not in {"content-length", "transfer-encoding"}
            self.require("headers", f"{name[:64]!r} or its value is none HTTP takes", holds=bool(sound))


@contract
class Pinged(Result):
    """How many packets came back and how long that took; the times are 0 if none did.

    `method` is "icmp", or "tcp" where the worker may send none or nothing came back: then connections were made.
    """

    host: str
    address: str
    method: str
    sent: int
    received: int
    least_s: float
    mean_s: float
    most_s: float


@contract
class Ping(Call[Pinged], operation="network.ping"):
    """Send ICMP echo requests one after the other; without an answer, connect to `port`.

    Nothing that answers is an answer, too: `received` is 0.
    """

    host: str
    count: int = 3
    port: int = 443
    timeout_s: float = 5.0

    def check(self) -> None:
        """Check the endpoint and the count."""
        _check_endpoint(self)
        self.require_between("count", 1, 20)


@contract
class NetworkStats(Result):
    """Of the worker that answers, since it began.

    `hits`, `stale` and `negative` look-ups were answered by its cache, `joined` by a question under way, `shared` by
    the cluster's; `asked` went to name servers, `failed` found none that answered. `hit_ratio` is what part its cache
    answered, `shared_ratio` counts the cluster's, too; 0 before the first look-up. `connections` are leased in the
    whole cluster.
    """

    worker: str
    names: int
    capacity: int
    hits: int
    stale: int
    negative: int
    joined: int
    shared: int
    asked: int
    failed: int
    hit_ratio: float
    shared_ratio: float
    connections: int
    connections_limit: int


@contract
class Stats(Call[NetworkStats], operation="network.stats"):
    """Tell how one worker's look-ups went, and how many connections the cluster has leased."""


@contract
class Check(Result):
    """One thing the subsystem needs, and whether it is there."""

    name: str
    ok: bool
    detail: str


@contract
class NetworkHealth(Result):
    """`state` is "healthy"; "degraded" if something is missing; "unhealthy" if no name can be resolved."""

    state: str
    worker: str
    checks: tuple[Check, ...]


@contract
class Health(Call[NetworkHealth], operation="network.health"):
    """Tell whether one worker can do its work: name servers, Redis, ICMP."""


def _check_endpoint(call: ProbeTcp | ProbeTls | Ping) -> None:
    call.require_text("host", limit=NAME_LIMIT, forbidden=NAME_FORBIDDEN)
    call.require_between("port", 1, 65535)
    call.require_between("timeout_s", 0.001, 60)


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and "@" not in parts.netloc and port != 0


def _is_alpn(names: tuple[str, ...]) -> bool:
    return len(names) <= 16 and all(each.isascii() and 0 < len(each) <= 255 for each in names)  # noqa: PLR2004 - RFC 7301


def _is_host(name: str) -> bool:
    return is_name(name) and level_of(name) == "host"
