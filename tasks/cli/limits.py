"""`gaia limits`: what holds for the whole cluster, set while it runs."""

from typing import Any

import click
from rich.console import Console
from rich.table import Column, Table

from gaia.store.limits import Limit, shown
from tasks.cli.output import moment
from tasks.cli.producer import connected

_OPTIONS = {
    "rate_per_s": (float, "Requests a second."),
    "burst": (int, "Requests at once; a second's worth by default."),
    "concurrency": (int, "Requests, runs or the like under way at once."),
    "bytes_per_s": (float, "Bandwidth."),
    "burst_bytes": (int, "Bytes at once; 80 ms' worth by default."),
    "failure_threshold": (int, "Failures in a row that open the circuit."),
    "open_s": (float, "Seconds that the circuit stays open."),
    "success_threshold": (int, "Probes that succeed in a row close it."),
}


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"


@click.group()
def limits() -> None:
    """Limits by name: global, a host, key:..., job:..., pool:... . In force everywhere within a second."""


@click.option("--shadow/--no-shadow", default=None, help="Count, do not refuse.")
@click.argument("name")
def change(name: str, **given: Any) -> None:
    """Change the limits of a name; what is left out stays as it was."""
    changes = {field: value for field, value in given.items() if value is not None}
    if not changes:
        raise click.UsageError(f"Say what to set: {', '.join(map(_option, _OPTIONS))}, --shadow or --no-shadow.")
    with connected() as gaia:
        kept = gaia.limits.set(name, **changes)
    click.echo(_line(name, kept))


for _field, (_kind, _help) in reversed(_OPTIONS.items()):
    change = click.option(_option(_field), type=_kind, help=_help)(change)
limits.command("set")(change)


@limits.command()
@click.argument("name")
def get(name: str) -> None:
    """Show what is set for a name."""
    with connected() as gaia:
        found = gaia.limits.get(name)
    if found is None:
        message = f"nothing is set for {name}: the workers' settings hold (`gaia settings`)"
        raise click.ClickException(message)
    click.echo(_line(name, found))


@limits.command("list")
def list_limits() -> None:
    """Show everything that is set, and the circuits that are not closed."""
    with connected() as gaia:
        found, circuits = gaia.limits.list(), gaia.limits.circuits()
    if found:
        table = Table("name", "what is set")
        for name, each in found.items():
            table.add_row(name, _fields(each))
        Console().print(table)
    else:
        click.echo("nothing is set: the workers' settings hold (`gaia settings`)")
    if not circuits:
        click.echo("no circuit is open")
        return
    table = Table(Column("circuit", overflow="fold"), "state", "since", "until")
    for circuit in circuits:
        until = moment(circuit.until) if circuit.until else "its probes succeed"
        table.add_row(circuit.name, circuit.state.replace("_", " "), moment(circuit.since), until)
    Console().print(table)


@limits.command()
@click.argument("name")
def reset(name: str) -> None:
    """Forget what is set for a name, so that the workers' settings hold."""
    with connected() as gaia:
        was_set = gaia.limits.reset(name)
    click.echo(f"{name} is as in the workers' settings" + ("" if was_set else "; nothing was set"))


def _line(name: str, limit: Limit) -> str:
    return f"{name}: {_fields(limit) or 'nothing'}"


def _fields(limit: Limit) -> str:
    return " ".join(f"{field}={value:.12g}" if field in _OPTIONS else field for field, value in shown(limit).items())
