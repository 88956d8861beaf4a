"""Every setting of a worker, read once from the environment, frozen.

`GAIA_<SECTION>__<FIELD>`, JSON for lists and objects. A variable that starts with GAIA_ and is no setting stops the
boot, so a typing error cannot silently leave a default in force.
"""

import difflib
import json
import os
from collections.abc import Mapping
from functools import cache
from ipaddress import ip_network
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FilePath, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.sources.utils import parse_env_vars

from config.browser import Browser as Browser  # noqa: PLC0414 - a section like those here
from config.nameservers import Nameserver
from config.programs import Process
from config.section import Directory, Section, Text
from config.watching import Monitor
from gaia.store.artifacts import MEMORY_BYTES, TTL_LEAST_S, TTL_MOST_S
from gaia.store.connection import URL_FORM, is_url
from gaia.store.directory import QUOTA_BYTES, directory_of

PREFIX: Final = "GAIA_"


class SettingsError(Exception):
    """The environment does not make a configuration. The text names each variable and what it must be."""


def _redis_url(text: str) -> str:
    """Check the URL of a Redis; the complaint shows nothing of it."""
    if not is_url(text):
        raise ValueError(URL_FORM)
    return text


def _artifacts_url(text: str) -> str:
    """Check the URL of a directory; the complaint shows nothing of it."""
    directory_of(text)
    return text


def _ports(text: str) -> str:
    """Check `443` or `8000-8999`."""
    low, high = port_range(text)
    if not 0 < low <= high <= 65535:  # noqa: PLR2004 - the largest port
        raise ValueError(f"{text!r} is no port or range of ports")
    return text


def port_range(text: str) -> tuple[int, int]:
    """Give the first and last port of `443` or `8000-8999`."""
    low, dash, high = text.partition("-")
    return _port(low), _port(high if dash else low)


def _cidr(text: str) -> str:
    """Check `10.0.0.0/8`, `127.0.0.1/32:8080` or `[::1/128]:8080`."""
    network, port = split_cidr(text)
    ip_network(network)
    if port is not None and not 0 < port <= 65535:  # noqa: PLR2004 - the largest port
        raise ValueError(f"port {port} is out of range")
    return text


def split_cidr(text: str) -> tuple[str, int | None]:
    """Split an entry of `ALLOW_CIDRS` into the network and its port, None when it names none."""
    if text.startswith("["):
        network, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is no [network]:port")
        return network, _port(rest[1:]) if rest else None
    if text.count(":") == 1:
        network, _, port = text.partition(":")
        return network, _port(port)
    return text, None


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is no port")
    return int(text[:6])


def _proxy(given: SecretStr) -> SecretStr:
    """Check the URL of a proxy; the complaint shows nothing of it."""
    try:
        parts = urlsplit(given.get_secret_value())
        sound = parts.scheme == "http" and parts.hostname and parts.port and parts.path in {"", "/"} and not parts.query
    except ValueError:
        sound = False
    if not sound:
        raise ValueError("must be http://host:port; a user and a password go before the host, as user:password@")
    return given


Cidr = Annotated[str, AfterValidator(_cidr)]
ArtifactsUrl = Annotated[str, AfterValidator(_artifacts_url)]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
Ports = Annotated[str, AfterValidator(_ports)]
ProxyUrl = Annotated[SecretStr, AfterValidator(_proxy)]
RootName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]


class Egress(Section):
    """Which outbound addresses workers may dial."""

    allow_cidrs: tuple[Cidr, ...] = Field(default=(), examples=[["10.0.0.0/8"]])
    """Networks that are reachable although the rules deny them; an entry may carry a port: `127.0.0.1/32:8080`."""
    allow_hosts: tuple[Text, ...] = Field(default=(), examples=[["intranet.example"]])
    """Host names that may resolve to private (RFC 1918, ULA) addresses; never to loopback or link-local."""


class Api(Section):
    """HTTP requests."""

    pool_connections: int = Field(default=100, ge=1, le=10_000)
    """Idle sessions kept per worker."""
    sessions_per_origin: int = Field(default=100, ge=1, le=10_000)
    """Sessions in use per scheme, host and port in one worker."""
    session_wait_s: float = Field(default=5.0, gt=0, le=60)
    """How long a request waits for one of these before it is `PoolExhausted`."""
    bulk_connections: int = Field(default=1000, ge=1, le=20_000)
    """Connections at once of all `request_many` in one worker, and how many are kept."""
    batch_bytes: int = Field(default=128 * 1024 * 1024, ge=1)
    """What the bodies of one `request_many` may hold, together."""
    proxies: dict[RootName, ProxyUrl] = Field(default={}, examples=[{"corp": "http://192.0.2.8:3128"}])
    """Name to URL (`http://user:password@host:port`) of the HTTP proxies that calls may ask for.

    A proxy in a private network needs `ALLOW_CIDRS`.
    """
    connect_timeout_s: float = Field(default=5.0, gt=0, le=60)
    """A dial that takes longer is a failed one; the rest of `timeout_s` is for the answer."""
    user_agent: Text = "gaia/0.1"
    """What requests say they come from, unless a call says otherwise."""
    ca_file: FilePath | None = None
    """Authorities in PEM that server certificates are checked against. Those of the certifi package by default."""


class RootQuota(BaseModel):
    """What a root may hold; no bound by default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_bytes: int | None = Field(default=None, ge=0)
    files: int | None = Field(default=None, ge=0)


class Files(Section):
    """Confined file access."""

    roots: dict[RootName, Directory] = Field(default={}, examples=[{"data": "/srv/data"}])
    """Name to directory, as {"data": "/srv/data"}. None by default: no file is reachable."""
    local: tuple[RootName, ...] = Field(default=(), examples=[["scratch"]])
    """Roots that are this machine's alone: a call about one is led to a worker that has it."""
    quotas: dict[RootName, RootQuota] = Field(
        default={}, examples=[{"data": {"size_bytes": 10_000_000_000, "files": 100_000}}]
    )
    """What roots may hold, as {"data": {"size_bytes": 10000000000, "files": 100000}}. No bound by default."""
    max_operations: int = Field(default=500, ge=1, le=100_000)
    """Operations at once in one worker; more wait."""


class Network(Section):
    """Names and reachability."""

    nameservers: tuple[Nameserver, ...] = Field(default=(), examples=[["192.0.2.53", "192.0.2.54:5353"]])
    """`address` or `address:port` of DNS servers. Those of /etc/resolv.conf by default."""
    cache_entries: int = Field(default=1000, ge=1)
    """Names kept; the least recently used goes first."""
    max_ttl_s: float = Field(default=300.0, gt=0)
    """No answer is kept longer."""
    stale_s: float = Field(default=30.0, ge=0, le=3600)
    """Past its time an answer is given for as long as its TTL, at most so long, while it is asked for anew."""
    probe_ports: tuple[Ports, ...] = Field(default=("53", "80", "443"), examples=[["443", "8000-8999"]])
    """Ports that probes may connect to, and at which chosen DNS servers may be asked."""
    shared_cache: bool = True
    """Share answers with the workers that ask the same servers, through Redis."""


class Worker(Section):
    """A worker process."""

    concurrency: int | None = Field(default=None, ge=1, le=1000)
    """Calls at once. By default 10 for api, files and network, 208 for process, 4 for browser."""
    grace_s: float = Field(default=20.0, ge=0, le=3600)
    """How long a stopping worker lets running calls end before it hands them back."""
    deadline_s: float = Field(default=900.0, gt=0, le=86_400)
    """The deadline of a call that brings none, as those of stock Celery producers do."""
    memory_bytes: int | None = Field(default=None, gt=0)
    """Resident memory past which a worker drains and executes itself anew. No bound by default."""
    delivery_cap: int = Field(default=3, ge=1, le=100)
    """Workers that may be lost over a call before it becomes a dead letter."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least severe lines that are logged."""
    host: Text = "127.0.0.1"
    """The address of the worker's own metrics and health. Any but a loopback one needs `GAIA_MONITOR__TOKEN`."""
    port: int = Field(default=0, ge=0, le=65535)
    """Their port; 0 takes any free one, which the monitor learns from the heartbeat."""


class Flower(Section):
    """The web page that shows workers and tasks."""

    host: Text = "127.0.0.1"
    """The address to listen on."""
    port: int = Field(default=5555, ge=0, le=65535)
    """The port to listen on; 0 takes any free one."""
    basic_auth: SecretStr | None = None
    """`user:password`. Needed to listen anywhere but on loopback."""
    read_only: bool = True
    """Without buttons that stop workers or revoke tasks."""


class Artifacts(Section):
    """Large bodies."""

    url: ArtifactsUrl | None = None
    """The directory for bodies over 8 MiB, shared by producers and workers: `file:///srv/gaia-artifacts` or a path."""
    ttl_s: int = Field(default=3600, ge=TTL_LEAST_S, le=TTL_MOST_S)
    """How long a body is kept; that of a call at least an hour past its deadline."""
    quota_bytes: int = Field(default=QUOTA_BYTES, gt=0)
    """What the directory may hold."""
    memory_bytes: int = Field(default=MEMORY_BYTES, gt=0)
    """What the bodies of one call may take of a worker's memory, together."""


class Limits(Section):
    """What holds for the whole cluster unless `gaia limits` sets something else. Workers should agree on it."""

    rate_per_s: float = Field(default=1000.0, ge=0.001, le=1_000_000)
    """Requests a second of the whole cluster."""
    burst: int = Field(default=1000, ge=1, le=10_000_000)
    """Requests of the whole cluster at once."""
    host_rate_per_s: float | None = Field(default=None, ge=0.001, le=1_000_000)
    """Requests a second to one host. No limit by default."""
    host_burst: int | None = Field(default=None, ge=1, le=10_000_000)
    """Requests to one host at once, a second's worth by default."""
    host_concurrency: int | None = Field(default=None, ge=1, le=1_000_000)
    """Requests to one host under way at once. No limit by default."""
    connections: int = Field(default=1000, ge=1, le=1_000_000)
    """Connections of the whole cluster that are leased at once (`network.acquire_connection`)."""
    host_connections: int = Field(default=100, ge=1, le=1_000_000)
    """Connections to one host that are leased at once, where no concurrency is set for it."""
    bytes_per_s: float | None = Field(default=None, ge=1, le=10**11)
    """Bandwidth of the whole cluster. No limit by default."""
    failure_threshold: int = Field(default=5, ge=1, le=1_000_000)
    """Failures in a row, over the whole cluster, that open the circuit of a host."""
    open_s: float = Field(default=30.0, ge=0.001, le=86_400)
    """How long a circuit stays open before a probe is let through."""
    success_threshold: int = Field(default=3, ge=1, le=1_000_000)
    """Probes that succeed in a row close a circuit."""
    probe_s: float = Field(default=60.0, ge=0.001, le=86_400)
    """A probe without a verdict for so long is taken for dead, and the next caller is the probe."""


class Settings(BaseSettings):
    """Everything. Sections are frozen; `load` reads the environment once."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
    )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from `read` alone: an environment is an argument there, not a global."""
        del settings_cls, _, __
        return (init_settings,)

    redis_url: RedisUrl = Field(default="redis://127.0.0.1:6379/0", repr=False)
    """Broker. `redis://`, `rediss://`; the password is part of it."""
    result_url: RedisUrl | None = Field(default=None, repr=False)
    """Result store, the broker's Redis by default."""
    egress: Egress = Egress()
    api: Api = Api()
    files: Files = Files()
    process: Process = Process()
    browser: Browser = Browser()
    network: Network = Network()
    worker: Worker = Worker()
    flower: Flower = Flower()
    artifacts: Artifacts = Artifacts()
    limits: Limits = Limits()
    monitor: Monitor = Monitor()


class _Environment(EnvSettingsSource):
    """pydantic-settings' own reading of nested variables, from a given mapping."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(Settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return parse_env_vars(self._environ, self.case_sensitive, self.env_ignore_empty, self.env_parse_none_str)


def read(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from an environment.

    Raises:
        SettingsError: naming every variable that is unknown or has a value that does not fit.
    """
    environ = os.environ if environ is None else environ
    unparsable, misspelt = _unparsable(environ), _misspelt(environ)
    complaints = [*misspelt.values(), *unparsable.values()]
    sound = {name: value for name, value in environ.items() if name not in unparsable and name not in misspelt}
    try:
        settings = Settings(**_Environment(sound)())
    except ValidationError as failure:
        complaints += [_complaint(each) for each in failure.errors(include_input=False)]
    if complaints:
        raise SettingsError("; ".join(dict.fromkeys(complaints)))
    return settings


@cache
def load() -> Settings:
    """Read the process's own environment, once."""
    return read()


def variables() -> dict[str, str]:
    """Give the name of every variable and what it is for, sections expanded."""
    return {name: field.description or "" for name, field in _fields().items()}


@cache
def _fields() -> dict[str, FieldInfo]:
    found = {}
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            for inner, leaf in section.model_fields.items():
                found[f"{PREFIX}{name}__{inner}".upper()] = leaf
        else:
            found[f"{PREFIX}{name}".upper()] = field
    return found


def _unparsable(environ: Mapping[str, str]) -> dict[str, str]:
    """Give a complaint for each variable whose value should be JSON and is not."""
    complaints = {}
    sections = {PREFIX + name.upper() for name in Settings.model_fields} - set(_fields())
    for name, value in environ.items():
        field = _fields().get(name.upper())
        example = field.examples[0] if field is not None and field.examples else None
        if example is not None or name.upper() in sections:
            try:
                found = json.loads(value)
            except (ValueError, RecursionError):
                found = None
            if found is None or (example is None and not isinstance(found, dict)):
                such = "an object of its fields" if example is None else f"such as {json.dumps(example)}"
                complaints[name] = f"{name} must be JSON, {such}"
    return complaints


def _misspelt(environ: Mapping[str, str]) -> dict[str, str]:
    """Give a complaint for each variable that is no setting."""
    known = _fields()
    sections = [PREFIX + name.upper() for name in Settings.model_fields]
    complaints = {}
    for name in environ:
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in known or upper in sections:
            continue
        if any(upper.startswith(each + "__") for each, field in known.items() if isinstance(field.default, dict)):
            continue  # inside a value that is an object
        # The prefix, which all share, makes any two alike.
        close = difflib.get_close_matches(
            upper.removeprefix(PREFIX), [each.removeprefix(PREFIX) for each in known], n=1
        )
        hint = f", did you mean {PREFIX}{close[0]}?" if close else ""
        complaints[name] = f"{name} is no setting{hint}"
    return complaints


def _complaint(error: ErrorDetails) -> str:
    """Name the variable, the item within it if there is one, and what is wrong."""
    parts = [str(each).upper() for each in error["loc"]]
    depth = next((depth for depth in (2, 1) if PREFIX + "__".join(parts[:depth]) in _fields()), len(parts))
    name = PREFIX + "__".join(parts[:depth]) + "".join(f"[{each}]" for each in error["loc"][depth:])
    told = error["msg"].removeprefix("Value error, ")
    # A colon after a name that sounds secret would have redaction strike what follows.
    return f"{name} {told}" if told.startswith("must ") else f"{name}: {told}"
