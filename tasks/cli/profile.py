"""`gaia profile`: what a running worker spends its time and memory on, asked through the monitor."""

import shutil
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import click

from config.settings import load
from tasks.runtime.pages import WILDCARDS

PAGES: Final = {"cpu": "profile", "heap": "heap", "waits": "waits", "threads": "threads", "gc": "gc", "tasks": "tasks"}
ENDINGS: Final = {"pprof": "pb.gz", "speedscope": "speedscope.json", "svg": "svg", "folded": "txt", "text": "txt"}
TAKEN: Final = {"cpu": "svg", "heap": "svg", "waits": "text"}
"""What takes its time, and in which format it comes unless one is asked for."""
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
    if (worker is None) == (queue is None):
        raise click.UsageError("Name one worker, or --queue.")
    if by_py_spy:
        _py_spy(worker, seconds or 30.0, output)
        return
    form = (form or TAKEN[what]) if what in TAKEN else None
    given = {"worker": worker, "queue": queue, "seconds": seconds, "format": form}
    query = urlencode({name: value for name, value in given.items() if value is not None})
    body = _asked(f"/debug/pprof/{PAGES[what]}?{query}", (seconds or 30.0) + MARGIN_S)
    if form is None or (form == "text" and output is None):
        sys.stdout.buffer.write(body)
        return
    path = output or Path(f"{what}.{ENDINGS[form]}")
    path.write_bytes(body)
    click.echo(f"{path} ({len(body)} bytes)")


def _asked(path: str, bound_s: float) -> bytes:
    monitor = load().monitor
    if monitor.token is None:
        raise click.ClickException("profiles are off: set GAIA_MONITOR__TOKEN for workers, monitor and this command")
    # A wildcard is where the monitor listens, not where it is reached.
    host = "127.0.0.1" if monitor.host in WILDCARDS else monitor.host
    connection = HTTPConnection(host, monitor.port, timeout=bound_s)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {monitor.token.get_secret_value()}"})
        reply = connection.getresponse()
        body = reply.read()
    except OSError as failure:
        raise click.ClickException(f"the monitor does not answer on port {monitor.port}: {failure}") from None
    finally:
        connection.close()
    if reply.status != 200:  # noqa: PLR2004 - OK
        raise click.ClickException(body.decode("utf-8", "replace").strip())
    answered, _, asked = reply.headers.get("Gaia-Workers", "").partition(" of ")
    if answered != asked:
        click.echo(f"{answered} of {asked} workers answered", err=True)
    return body


def _py_spy(worker: str | None, seconds: float, output: Path | None) -> None:
    from gaia import Gaia

    program = shutil.which("py-spy")
    if program is None:
        raise click.ClickException("there is no py-spy: pip install py-spy")
    with Gaia(load().redis_url) as g:
        found = next((each for each in g.nodes() if each.name == worker), None)
    if found is None:
        raise click.ClickException(f"no worker is called {worker}")
    path = output or Path("cpu.svg")
    command = [
        program,
        "record",
        "--pid",
        str(found.pid),
        "--duration",
        str(max(1, int(seconds))),
        "--output",
        str(path),
    ]
    sys.exit(subprocess.run(command, check=False).returncode)  # noqa: S603 - an argument vector of our own
