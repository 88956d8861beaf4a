"""Every setting of a worker, read once from the environment, frozen.

`GAIA_<SECTION>__<FIELD>`, JSON for lists and objects. A variable that starts with GAIA_ and is no setting stops the
boot, so a typing error cannot silently leave a default in force.
"""

import difflib
import os
from collections.abc import Mapping
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FilePath, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as PydanticSettingsError
from pydantic_settings.sources.utils import parse_env_vars

PREFIX: Final = "GAIA_"


class SettingsError(Exception):
    """The environment does not make a configuration. The text names each variable and what it must be."""


def _cidr(text: str) -> str:
    """Check `10.0.0.0/8`, `127.0.0.1/32:8080` or `[::1/128]:8080`."""
    network, port = split_cidr(text)
    ip_network(network)
    if port is not None and not 0 < port <= 65535:  # noqa: PLR2004 - the largest port
        message = f"port {port} is out of range"
        raise ValueError(message)
    return text


def split_cidr(text: str) -> tuple[str, int | None]:
    """Split an entry of `ALLOW_CIDRS` into the network and its port, None when it names none."""
    if text.startswith("["):
        network, _, rest = text[1:].partition("]")
        return network, int(rest.removeprefix(":")) if rest else None
    if text.count(":") == 1:
        network, _, port = text.partition(":")
        return network, int(port)
    return text, None


Cidr = Annotated[str, AfterValidator(_cidr)]


class Section(BaseModel):
    """A frozen group of settings that refuses unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Egress(Section):
    """Which outbound addresses workers may dial."""

    allow_cidrs: tuple[Cidr, ...] = ()
    """Networks that are reachable although the rules deny them; an entry may carry a port: `127.0.0.1/32:8080`."""
    allow_hosts: tuple[str, ...] = ()
    """Host names that may resolve to private (RFC 1918, ULA) addresses; never to loopback or link-local."""


class Api(Section):
    """HTTP requests."""

    pool_connections: int = Field(default=100, ge=1, le=10_000)
    """Sessions kept per worker."""
    connect_timeout_s: float = Field(default=5.0, gt=0, le=60)
    """A dial that takes longer is a failed one; the rest of `timeout_s` is for the answer."""
    user_agent: str = "gaia/0.1"
    ca_file: FilePath | None = None
    """Authorities in PEM that server certificates are checked against. Those of the certifi package by default."""


class Files(Section):
    """Confined file access."""

    roots: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")], Path] = {}
    """Name to directory, as {"data": "/srv/data"}. None by default: no file is reachable."""


class Process(Section):
    """Running programs."""

    executables: tuple[str, ...] = ()
    """Absolute paths or globs of programs that may run. None by default."""
    env_allowed: tuple[str, ...] = ("LANG", "LC_ALL", "TZ", "TERM")
    """Names of variables a caller may set."""
    memory_bytes: int = Field(default=256 * 1024 * 1024, gt=0)
    """Resident memory of a tree, when the call sets none."""
    output_bytes: int = Field(default=1024 * 1024, gt=0)
    """What stdout and stderr may hold each, when the call sets none."""
    grace_s: float = Field(default=2.0, ge=0, le=60)
    """Between SIGTERM and SIGKILL."""


class Browser(Section):
    """Chromium."""

    chromium: str | None = None
    """Path of the browser. By default the first found of the usual names on the PATH."""
    no_sandbox: bool = False
    """Run Chromium without its sandbox. Only for machines whose kernel forbids it; pages are then less confined."""
    user: str = "nobody"
    """When the worker runs as root, Chromium runs under this user."""
    max_pages: int = Field(default=4, ge=1, le=100)
    """Pages at once in one worker."""
    recycle_after: int = Field(default=200, ge=1)
    """Pages after which a browser is replaced, since long-lived ones grow."""


class Network(Section):
    """Names and reachability."""

    nameservers: tuple[str, ...] = ()
    """`address` or `address:port` of DNS servers. Those of /etc/resolv.conf by default."""
    cache_entries: int = Field(default=1000, ge=1)
    """Names kept; the least recently used goes first."""
    max_ttl_s: float = Field(default=300.0, gt=0)
    """No answer is kept longer."""


class Worker(Section):
    """A worker process."""

    concurrency: int | None = Field(default=None, ge=1, le=1000)
    """Calls at once. By default 10 for api, files and network, 8 for process, 4 for browser."""
    grace_s: float = Field(default=20.0, ge=0, le=3600)
    """How long a stopping worker lets running calls end before it hands them back."""
    deadline_s: float = Field(default=900.0, gt=0, le=3000)
    """The deadline of a call that brings none. Below the visibility timeout of the queue, an hour."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    port: int | None = Field(default=None, ge=0, le=65535)
    """Reserved for the worker's own metrics and health over TCP."""


class Flower(Section):
    """The web page that shows workers and tasks."""

    host: str = "127.0.0.1"
    port: int = Field(default=5555, ge=0, le=65535)
    basic_auth: SecretStr | None = None
    """`user:password`. Needed to listen anywhere but on loopback."""
    read_only: bool = True
    """Without buttons that stop workers or revoke tasks."""


class Artifacts(Section):
    """Large bodies."""

    url: str | None = None
    """Reserved: where bodies over 8 MiB go. By default the result store keeps bodies up to 8 MiB."""
    ttl_s: int = Field(default=3600, ge=60)
    """How long a body is kept."""


class Monitor(Section):
    """The monitor process."""

    port: int = Field(default=9808, ge=0, le=65535)
    """Reserved for the cluster's metrics."""


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

    redis_url: str = Field(default="redis://127.0.0.1:6379/0", repr=False)
    """Broker. `redis://`, `rediss://`; the password is part of it."""
    result_url: str | None = Field(default=None, repr=False)
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
    complaints = _misspelt(environ)
    try:
        settings = Settings(**_Environment(environ)())
    except ValidationError as failure:
        complaints += [_complaint(each) for each in failure.errors()]
    except PydanticSettingsError as failure:
        # A value that should be JSON and is not: the message names the field.
        complaints.append(f"{failure}: it must be JSON")
    if complaints:
        raise SettingsError("; ".join(dict.fromkeys(complaints)))
    return settings


@cache
def load() -> Settings:
    """Read the process's own environment, once."""
    return read()


def variables() -> dict[str, str]:
    """Give the name of every variable and what it is for, sections expanded."""
    found = {}
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            for inner, leaf in section.model_fields.items():
                found[f"{PREFIX}{name}__{inner}".upper()] = leaf.description or ""
        else:
            found[f"{PREFIX}{name}".upper()] = field.description or ""
    return found


def _misspelt(environ: Mapping[str, str]) -> list[str]:
    known = variables()
    sections = [PREFIX + name.upper() for name in Settings.model_fields]
    complaints = []
    for name in environ:
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in known or upper in sections:
            continue
        if any(upper.startswith(each + "__") for each in known):
            continue  # inside a value that is an object
        close = difflib.get_close_matches(upper, known, n=1)
        hint = f", did you mean {close[0]}?" if close else ""
        complaints.append(f"{name} is no setting{hint}")
    return complaints


def _complaint(error: ErrorDetails) -> str:
    name = PREFIX + "__".join(str(each) for each in error["loc"]).upper()
    return f"{name}: {error['msg']}"
