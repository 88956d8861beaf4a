"""`gaia profile`: what a running worker spends its time and memory on, asked through the monitor."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import click

from config.settings import load
from gaia.store.nodes import Node
from tasks.cli.producer import connected, here
from tasks.cli.state import MONITOR_HOST, MONITOR_PORT
from tasks.runtime.pages import reached

PAGES: Final = {"cpu": "profile", "heap": "heap", "waits": "waits", "threads": "threads", "gc": "gc", "tasks": "tasks"}
ENDINGS: Final = {
    "pprof": "pb.gz",
    "speedscope": "speedscope.json",
    "svg": "svg",
    "folded": "txt",
    "json": "json",
    "text": "txt",
}
TAKEN: Final = {"cpu": "svg", "heap": "svg", "waits": "text"}
"""What takes its time, and in which format it comes unless one is asked for."""
PY_SPY: Final = {"svg": "flamegraph", "speedscope": "speedscope", "folded": "raw"}
"""What py-spy can write, and what it calls that."""
MARGIN_S: Final = 30.0


@click.command()
@click.argument("what", type=click.Choice(list(PAGES)))
@click.argument("worker", required=False)
@click.option("--queue", help="All workers of this queue, added up, in place of one.")
@click.option("--seconds", type=click.FloatRange(0.1, 300), default=None, help="30 for cpu, 5 for heap, 10 for waits.")
@click.option("--format", "form", type=click.Choice(list(ENDINGS)), help="svg, for waits text.")
@click.option("--output", type=click.Path(path_type=Path), help="The file to write; by default named by what it is.")
@click.option("--py-spy", "by_py_spy", is_flag=True, help="Let py-spy sample a worker of this machine, C code too.")
def profile(
    what: str,
    worker: str | None,
    queue: str | None,
    seconds: float | None,
    form: str | None,
    output: Path | None,
    by_py_spy: bool,  # noqa: FBT001 - as above
) -> None:
    """Profile a WORKER, given by its node's name, without stopping it."""
    _require_sense(what, worker, queue, form, by_py_spy=by_py_spy)
    form = form or TAKEN.get(what)
    path = output
    if path is None and form is not None and form != "text":
        path = Path(f"{what}.{ENDINGS[form]}")
    with _writable(path):
        if by_py_spy and path is not None:
            _py_spy(worker or "", seconds or 30.0, form or "", path)
            return
        given = {"worker": worker, "queue": queue, "seconds": seconds, "format": form}
        query = urlencode({name: value for name, value in given.items() if value is not None})
        body = _asked(f"/debug/pprof/{PAGES[what]}?{query}", (seconds or 30.0) + MARGIN_S)
        if path is None:
            sys.stdout.buffer.write(body)
            return
        path.write_bytes(body)
    click.echo(f"{path} ({len(body)} bytes)")


def _require_sense(what: str, worker: str | None, queue: str | None, form: str | None, *, by_py_spy: bool) -> None:
    """Refuse what does not go together."""
    if (worker is None) == (queue is None):
        raise click.UsageError("Name one worker, or --queue.")
    if form is not None and what not in TAKEN:
        raise click.UsageError(f"{what} comes as text alone: leave out --format.")
    if form == "text" and what != "waits":
        raise click.UsageError("--format text is of waits alone.")
    if by_py_spy and what != "cpu":
        raise click.UsageError(f"py-spy samples the CPU alone: no {what} with --py-spy.")
    if by_py_spy and worker is None:
        raise click.UsageError("py-spy samples one worker: name it in place of --queue.")
    if by_py_spy and form not in {None, *PY_SPY}:
        raise click.UsageError(f"py-spy writes {', '.join(PY_SPY)}, not {form}.")


@contextmanager
def _writable(path: Path | None) -> Iterator[None]:
    """Open the file before the time of a profile is spent; a new one does not outlive a failure of the block.

    Raises:
        OSError: if it cannot be written.
    """
    is_new = path is not None and not path.exists()
    if path is not None:
        path.open("ab").close()
    try:
        yield
    except BaseException:
        if path is not None and is_new:
            path.unlink(missing_ok=True)
        raise


def _asked(path: str, bound_s: float) -> bytes:
    own = load().monitor
    if own.token is None:
        raise click.ClickException(
            "profiles are off: set GAIA_MONITOR__TOKEN, the same for workers, monitor and this command"
        )
    found = {} if own.model_fields_set & {"host", "port"} else here()
    host, port = found.get(MONITOR_HOST, own.host), int(found.get(MONITOR_PORT, own.port))
    connection = HTTPConnection(reached(host), port, timeout=bound_s)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {own.token.get_secret_value()}"})
        reply = connection.getresponse()
        body = reply.read()
    except OSError as failure:
        raise click.ClickException(
            f"the monitor does not answer on port {port} of {host} ({failure}): start one with `gaia monitor`, "
            "or say where it is with GAIA_MONITOR__PORT"
        ) from None
    finally:
        connection.close()
    if reply.status == HTTPStatus.UNAUTHORIZED:
        raise click.ClickException("GAIA_MONITOR__TOKEN is wrong: it is not the one that workers and monitor have")
    if reply.status != HTTPStatus.OK:
        raise click.ClickException(body.decode("utf-8", "replace").strip())
    answered, _, asked = reply.headers.get("Gaia-Workers", "").partition(" of ")
    if answered != asked:
        click.echo(f"{answered} of {asked} workers answered", err=True)
    return body


def _py_spy(worker: str, seconds: float, form: str, path: Path) -> None:
    program = shutil.which("py-spy")
    if program is None:
        raise click.ClickException("there is no py-spy: pip install py-spy")
    pid = _node(worker).pid
    how = ["--format", PY_SPY[form], "--duration", str(max(1, int(seconds)))]
    command = [program, "record", "--pid", str(pid), *how, "--output", str(path)]
    code = subprocess.run(command, check=False).returncode  # noqa: S603 - an argument vector of our own
    if code:
        raise click.ClickException(f"py-spy failed with exit code {code}; its lines above tell why")


def _node(name: str) -> Node:
    """Give a worker whose pid means something to this process.

    Raises:
        click.ClickException: if there is none.
    """
    from tasks.runtime.process import machine  # help does without

    with connected() as g:
        nodes = g.nodes()
    found = next((each for each in nodes if each.name == name), None)
    if found is None:
        names = ", ".join(each.name for each in nodes) or "none"
        raise click.ClickException(f"no worker is called {name}; there are: {names}")
    if found.host != socket.gethostname():
        raise click.ClickException(f"{name} runs on {found.host}: py-spy samples workers of its own machine")
    if found.machine != machine():
        raise click.ClickException(f"{name} runs in another container than this command: run py-spy in that one")
    return found
