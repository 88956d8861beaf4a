"""`gaia up`: the whole cluster on this machine, Redis included unless settings name one."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import click

from config.flower_options import flower_options
from config.monitor_options import bearer
from config.settings import Settings, read
from gaia import wire
from gaia.errors import Unreachable
from gaia.store.artifacts import URL_VARIABLE as ARTIFACTS_URL
from gaia.store.connection import connect, reaching, show_url
from tasks.cli import flower, notify
from tasks.cli.guard import stand_guard
from tasks.cli.output import Output
from tasks.cli.program import Program
from tasks.cli.server import EmbeddedServer, free_port, require_free
from tasks.cli.state import DEFAULT, StateDir
from tasks.cli.supervisor import StartFailed, Supervisor

READY_BOUND_S: Final = 90.0
"""Six interpreters start at once; on a busy machine of two cores that took twelve seconds."""

WORKER_MARGIN_S: Final = 10.0
"""A worker may take this longer than its grace time before it is killed."""

GAIA: Final = (sys.executable, "-P", "-m", "tasks.cli.main")
"""This command. Without -P, a folder `tasks` or `config` in the current directory would stand in for ours."""


def _named_queues(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    del context, parameter
    names = wire.QUEUES if value is None else tuple(dict.fromkeys(value.split(",")))
    for name in names:
        if name not in wire.QUEUES:
            raise click.BadParameter(f"{name!r} is no queue: {', '.join(wire.QUEUES)}")
    return names


@click.command()
@click.option("--state-dir", type=click.Path(path_type=Path), default=DEFAULT, help="Data and secrets; .gaia here.")
@click.option("--redis-port", type=click.IntRange(1, 65535), help="Of the embedded server; any free one.")
@click.option("--flower-port", type=click.IntRange(0, 65535), help="0 takes any free one. [GAIA_FLOWER__PORT]")
@click.option("--no-flower", is_flag=True, help="Without the web page.")
@click.option("--monitor-port", type=click.IntRange(0, 65535), help="0 takes any free one. [GAIA_MONITOR__PORT]")
@click.option("--no-monitor", is_flag=True, help="Without metrics and health of the cluster.")
@click.option("--queues", callback=_named_queues, metavar="NAME,NAME", help="Only workers of these.")
def up(
    state_dir: Path,
    redis_port: int | None,
    flower_port: int | None,
    monitor_port: int | None,
    *,
    no_flower: bool,
    no_monitor: bool,
    queues: tuple[str, ...],
) -> None:
    """Run the whole cluster on this machine until Ctrl-C or SIGTERM."""
    settings = read()
    flower_options(settings)
    bearer(settings, settings.worker.host, "GAIA_WORKER__HOST")
    bearer(settings, settings.monitor.host, "GAIA_MONITOR__HOST")
    stand_guard()
    state = StateDir(state_dir)
    state.create()
    with state.locked():
        page, own = settings.flower, settings.monitor
        ports = Ports(
            None if no_flower else _port(page.host, page.port, flower_port, "--flower-port"),
            None if no_monitor else _port(own.host, own.port, monitor_port, "--monitor-port"),
        )
        Up(settings, state, queues, ports).run(redis_port)


class Ports(NamedTuple):
    """Where Flower and the monitor listen; None for what is left out."""

    flower: int | None
    monitor: int | None

    def chosen(self) -> dict[str, int]:
        """Give those that are not left out, by name."""
        return {name: port for name, port in self._asdict().items() if port is not None}


class Up:
    """One run of a cluster: what is started, with which environment, and what is said about it."""

    def __init__(self, settings: Settings, state: StateDir, queues: tuple[str, ...], ports: Ports) -> None:
        """Decide the environment of the programs."""
        self._settings = settings
        self._state = state
        self._queues = queues
        self._ports = ports
        self._env = {name: value for name, value in os.environ.items() if name != notify.VARIABLE}
        self._own_files = "roots" not in settings.files.model_fields_set
        if self._own_files:
            self._env["GAIA_FILES__ROOTS"] = json.dumps({"data": str(state.directory("files"))})
        self._artifacts_url = settings.artifacts.url or str(state.directory("artifacts"))
        self._env[ARTIFACTS_URL] = self._artifacts_url
        self._output = Output(width=max(map(len, (*queues, "monitor"))))

    def run(self, redis_port: int | None) -> None:
        """Start everything, say so, and serve until a signal."""
        own_redis = "redis_url" not in self._settings.model_fields_set
        server = EmbeddedServer(self._state, redis_port) if own_redis else None
        url = server.url if server else self._settings.redis_url
        if server is None:
            _reach(url)
        with Supervisor(self._output) as cluster:
            if server:
                _start_server(cluster, server, self._env)
            cluster.start(*self._programs(url))
            cluster.wait_ready(READY_BOUND_S)
            self._state.announce(url, self._artifacts_url)
            self._output.say(self._banner(url, server))
            cluster.run()

    def _programs(self, url: str) -> list[Program]:
        # To workers, too: no call may dial these ports.
        ports = {f"GAIA_{name.upper()}__PORT": str(port) for name, port in self._ports.chosen().items()}
        env = self._env | {"GAIA_REDIS_URL": url} | ports
        grace_s = self._settings.worker.grace_s + WORKER_MARGIN_S
        programs = [
            Program(name, (*GAIA, "worker", name, "--name", name), env, grace_s, notifies=True) for name in self._queues
        ]
        programs += [Program(name, (*GAIA, name), env, notifies=True) for name in self._ports.chosen()]
        return programs

    def _banner(self, url: str, server: EmbeddedServer | None) -> str:
        where = f"{server.binary}, data in {self._state.path}" if server else "GAIA_REDIS_URL"
        lines = {"Workers": ", ".join(self._queues), "Redis": f"{show_url(url)} ({where})"}
        if self._ports.flower is not None:
            lines["Flower"] = flower.address(self._settings.flower.host, self._ports.flower)
        if self._ports.monitor is not None:
            lines["Metrics"] = flower.address(self._settings.monitor.host, self._ports.monitor) + "metrics"
        if self._own_files:
            lines["Files"] = f"data: is {self._state.path / 'files'} (GAIA_FILES__ROOTS names others)"
        if not self._settings.process.executables:
            lines["Programs"] = "none may run; GAIA_PROCESS__EXECUTABLES names them"
        option = "" if self._state.path == DEFAULT.absolute() else f" --state-dir {self._state.path}"
        lines["Producers"] = f'eval "$(gaia env{option})"'
        rows = "".join(f"  {name:<9} {text}\n" for name, text in lines.items())
        return f"\nGaia is up. Ctrl-C stops it.\n{rows}"


def _start_server(cluster: Supervisor, server: EmbeddedServer, env: Mapping[str, str]) -> None:
    cluster.start(Program("redis", server.argv, env))
    try:
        cluster.wait(lambda: "redis", server.answering, READY_BOUND_S)
    except StartFailed:
        raise StartFailed(f"redis did not start: {server.log} tells why") from None


def _reach(url: str) -> None:
    try:
        client = connect(url)
        with reaching(url):
            client.ping()
        client.close()
    except Unreachable as failure:
        raise click.ClickException(
            f"{str(failure).rstrip('.')}; start it, or unset GAIA_REDIS_URL and a server is brought along"
        ) from None


def _port(host: str, setting: int, given: int | None, option: str) -> int:
    port = setting if given is None else given
    if port == 0:
        return free_port(host)
    require_free(host, port, option)
    return port
