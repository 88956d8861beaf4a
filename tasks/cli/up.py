"""`gaia up`: the whole cluster on this machine, Redis included unless settings name one."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from config.flower_options import flower_options
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
@click.option("--queues", callback=_named_queues, metavar="NAME,NAME", help="Only workers of these.")
def up(
    state_dir: Path, redis_port: int | None, flower_port: int | None, *, no_flower: bool, queues: tuple[str, ...]
) -> None:
    """Run the whole cluster on this machine until Ctrl-C or SIGTERM."""
    settings = read()
    flower_options(settings)
    stand_guard()
    state = StateDir(state_dir)
    state.create()
    with state.locked():
        port = None if no_flower else _flower_port(settings, flower_port)
        Up(settings, state, queues, port).run(redis_port)


class Up:
    """One run of a cluster: what is started, with which environment, and what is said about it."""

    def __init__(self, settings: Settings, state: StateDir, queues: tuple[str, ...], flower_port: int | None) -> None:
        """Decide the environment of the programs."""
        self._settings = settings
        self._state = state
        self._queues = queues
        self._flower_port = flower_port
        self._env = {name: value for name, value in os.environ.items() if name != notify.VARIABLE}
        self._own_files = "roots" not in settings.files.model_fields_set
        if self._own_files:
            self._env["GAIA_FILES__ROOTS"] = json.dumps({"data": str(state.directory("files"))})
        self._artifacts_url = settings.artifacts.url or str(state.directory("artifacts"))
        self._env[ARTIFACTS_URL] = self._artifacts_url
        self._output = Output(width=max(map(len, (*queues, "flower"))))

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
        env = self._env | {"GAIA_REDIS_URL": url}
        grace_s = self._settings.worker.grace_s + WORKER_MARGIN_S
        programs = [
            Program(name, (*GAIA, "worker", name, "--name", name), env, grace_s, notifies=True) for name in self._queues
        ]
        if self._flower_port is not None:
            env = env | {"GAIA_FLOWER__PORT": str(self._flower_port)}
            programs.append(Program("flower", (*GAIA, "flower"), env, notifies=True))
        return programs

    def _banner(self, url: str, server: EmbeddedServer | None) -> str:
        where = f"{server.binary}, data in {self._state.path}" if server else "GAIA_REDIS_URL"
        lines = {"Workers": ", ".join(self._queues), "Redis": f"{show_url(url)} ({where})"}
        if self._flower_port is not None:
            lines["Flower"] = flower.address(self._settings.flower.host, self._flower_port)
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


def _flower_port(settings: Settings, option: int | None) -> int:
    host, port = settings.flower.host, settings.flower.port if option is None else option
    if port == 0:
        return free_port(host)
    require_free(host, port, "--flower-port")
    return port
