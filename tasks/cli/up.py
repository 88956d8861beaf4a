"""`gaia up`: the whole cluster on this machine, Redis included unless settings name one."""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Final, NamedTuple

import click

from config.flower_options import flower_options
from config.monitor_options import bearer
from config.settings import Settings, read
from gaia import wire
from gaia.client import RESULT_URL_VARIABLE, URL_VARIABLE
from gaia.store.artifacts import URL_VARIABLE as ARTIFACTS_URL
from gaia.store.connection import show_url
from tasks.cli import broker, flower, notify
from tasks.cli.guard import stand_guard
from tasks.cli.output import Output, plain
from tasks.cli.program import Program
from tasks.cli.server import EmbeddedServer, free_port, require_free
from tasks.cli.state import DEFAULT, MONITOR_HOST, MONITOR_PORT, StateDir
from tasks.cli.supervisor import StartFailed, Supervisor
from tasks.monitor import asking
from tasks.runtime.pages import reached

READY_BOUND_S: Final = 90.0
"""Six interpreters start at once; on a busy machine of two cores that took twelve seconds."""

AGREED_BOUND_S: Final = 15.0
"""Beyond a look at Redis, for the monitor to have found every worker ready. It takes some two seconds."""

ASKED_BOUND_S: Final = 1.0
"""For one answer of the monitor, while nothing else is seen to."""

READINESS_BYTES: Final = 1024 * 1024

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
    _require_one_port_a_worker(settings, queues)
    stand_guard()
    state = StateDir(state_dir)
    made = state.create()
    with state.locked():
        with _removed_on_failure(made):
            page, own = settings.flower, settings.monitor
            ports = Ports(
                None if no_flower else _port(page.host, page.port, flower_port, "--flower-port"),
                None if no_monitor else _port(own.host, own.port, monitor_port, "--monitor-port"),
            )
            if settings.worker.port:
                require_free(settings.worker.host, settings.worker.port, "GAIA_WORKER__PORT")
            prepared = Up(settings, state, queues, ports, redis_port)
        prepared.run()


@contextmanager
def _removed_on_failure(made: Path | None) -> Iterator[None]:
    """Remove the directory that was made for a cluster, if the block fails: nothing has been started in it."""
    try:
        yield
    except BaseException:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        raise


def _require_one_port_a_worker(settings: Settings, queues: tuple[str, ...]) -> None:
    port = settings.worker.port
    if port and len(queues) > 1:
        raise click.ClickException(
            f"GAIA_WORKER__PORT is {port}, and one port cannot serve the {len(queues)} workers of {', '.join(queues)}: "
            "unset it, and each takes a free one, or name one queue with --queues"
        )


class Ports(NamedTuple):
    """Where Flower and the monitor listen; None for what is left out."""

    flower: int | None
    monitor: int | None

    def chosen(self) -> dict[str, int]:
        """Give those that are not left out, by name."""
        return {name: port for name, port in self._asdict().items() if port is not None}


class Up:
    """One run of a cluster: what is started, with which environment, and what is said about it."""

    def __init__(
        self, settings: Settings, state: StateDir, queues: tuple[str, ...], ports: Ports, redis_port: int | None
    ) -> None:
        """Decide which Redis it is, and the environment of the programs.

        Raises:
            click.ClickException: if there is no Redis that could be used.
        """
        self._settings = settings
        self._state = state
        self._queues = queues
        self._ports = ports
        own_redis = "redis_url" not in settings.model_fields_set
        self._server = EmbeddedServer(state, redis_port) if own_redis else None
        self._url = self._server.url if self._server else settings.redis_url
        if self._server is None:
            broker.require(self._url, "start it, or unset GAIA_REDIS_URL and a server is brought along")
        self._env = {name: value for name, value in os.environ.items() if name != notify.VARIABLE}
        self._own_files = "roots" not in settings.files.model_fields_set
        if self._own_files:
            self._env["GAIA_FILES__ROOTS"] = json.dumps({"data": str(state.directory("files"))})
        self._artifacts_url = settings.artifacts.url or str(state.directory("artifacts"))
        self._env[ARTIFACTS_URL] = self._artifacts_url
        self._output = Output(width=max(map(len, (*queues, "monitor"))))

    def run(self) -> None:
        """Start everything, say so, and serve until a signal."""
        with Supervisor(self._output) as cluster:
            if self._server:
                _start_server(cluster, self._server, self._env)
            cluster.start(*self._programs(self._url))
            cluster.wait_ready(READY_BOUND_S)
            unready = self._agreed(cluster)
            self._state.announce(self._variables())
            self._output.say(self._banner(unready))
            cluster.run()

    def _agreed(self, cluster: Supervisor) -> list[str]:
        """Wait until the monitor finds ready what was started here; give what it says is not ready."""
        if self._ports.monitor is None:
            return []
        ends_at = time.monotonic() + AGREED_BOUND_S + self._settings.monitor.sample_s
        told: list[str] = []

        def done() -> bool:
            told[:] = self._unready()
            # Nobody here can make a queue ready that was left out, or that others serve.
            others = [each for each in wire.QUEUES if each not in self._queues]
            return all(each.partition(":")[0] in others for each in told) or time.monotonic() >= ends_at

        cluster.wait(lambda: "monitor", done, READY_BOUND_S + self._settings.monitor.sample_s)
        return told

    def _unready(self) -> list[str]:
        try:
            page = asking.page(self._monitor(), "/readiness", bound_s=ASKED_BOUND_S, most_bytes=READINESS_BYTES)
            return [str(each) for each in json.loads(page.body)["reasons"]]
        except (OSError, HTTPException, ValueError, KeyError) as failure:
            return [f"the monitor does not answer: {type(failure).__name__}"]

    def _monitor(self) -> str:
        """Give the address of the monitor, as it is reached from here."""
        return flower.address(reached(self._settings.monitor.host), self._ports.monitor or 0)

    def _variables(self) -> dict[str, str]:
        """Give what leads other commands to this cluster. The monitor's token is no part: whoever has it sets it."""
        found = {URL_VARIABLE: self._url, ARTIFACTS_URL: self._artifacts_url}
        if self._settings.result_url is not None:
            found[RESULT_URL_VARIABLE] = self._settings.result_url
        if self._ports.monitor is not None:
            found[MONITOR_PORT] = str(self._ports.monitor)
            if "host" in self._settings.monitor.model_fields_set:
                found[MONITOR_HOST] = self._settings.monitor.host
        return found

    def _programs(self, url: str) -> list[Program]:
        # To workers, too: no call may dial these ports.
        ports = {f"GAIA_{name.upper()}__PORT": str(port) for name, port in self._ports.chosen().items()}
        env = self._env | {URL_VARIABLE: url} | ports
        grace_s = self._settings.worker.grace_s + WORKER_MARGIN_S
        programs = [
            Program(name, (*GAIA, "worker", name, "--name", name), env, grace_s, notifies=True) for name in self._queues
        ]
        programs += [Program(name, (*GAIA, name), env, notifies=True) for name in self._ports.chosen()]
        return programs

    def _banner(self, unready: list[str]) -> str:
        server = self._server
        where = f"{server.binary}, data in {self._state.path}" if server else "GAIA_REDIS_URL"
        lines = {"Workers": ", ".join(self._queues), "Redis": f"{show_url(self._url)} ({where})"}
        if self._ports.flower is not None:
            lines["Flower"] = flower.address(self._settings.flower.host, self._ports.flower)
        if self._ports.monitor is not None:
            page = flower.address(self._settings.monitor.host, self._ports.monitor)
            lines |= {"Metrics": f"{page}metrics", "Dashboard": f"{page}dashboard"}
        if self._own_files:
            lines["Files"] = f"data: is {self._state.path / 'files'} (GAIA_FILES__ROOTS names others)"
        if not self._settings.process.executables:
            lines["Programs"] = "none may run; GAIA_PROCESS__EXECUTABLES names them"
        option = "" if self._state.path == DEFAULT.absolute() else f" --state-dir {self._state.path}"
        lines["Producers"] = f'eval "$(gaia env{option})"'
        if unready:
            lines["Not ready"] = plain("; ".join(unready))
        rows = "".join(f"  {name:<9} {text}\n" for name, text in lines.items())
        return f"\nGaia is up. Ctrl-C stops it.\n{rows}"


def _start_server(cluster: Supervisor, server: EmbeddedServer, env: Mapping[str, str]) -> None:
    cluster.start(Program("redis", server.argv, env))
    try:
        cluster.wait(lambda: "redis", server.answering, READY_BOUND_S)
    except StartFailed:
        raise StartFailed(f"redis did not start: {server.log} tells why") from None


def _port(host: str, setting: int, given: int | None, option: str) -> int:
    port = setting if given is None else given
    if port == 0:
        return free_port(host)
    require_free(host, port, option)
    return port
