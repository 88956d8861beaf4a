"""`gaia roots`: the identities by which the cluster knows the roots of files.

Which directory a root is says each worker's own settings; see docs/files.md.
"""

import sys

import click
from rich.console import Console
from rich.table import Table

from tasks.cli.producer import connected


@click.group(invoke_without_command=True)
@click.pass_context
def roots(context: click.Context) -> None:
    """Show the roots of files that the cluster knows; forget one that was replaced."""
    if context.invoked_subcommand is None:
        show()


def show() -> None:
    """Print a row a root."""
    with connected() as gaia:
        known, nodes = gaia.roots.list(), gaia.nodes()
    if not known:
        click.echo("no root is known: the next worker of files that starts enters its own")
        return
    table = Table("root", "identity", "local", "workers that have it")
    for each in known:
        holders = ", ".join(node.name for node in nodes if each.name in node.roots) if each.local else "all"
        table.add_row(each.name, each.identity, "yes" if each.local else "", holders)
    Console().print(table)


@roots.command()
@click.argument("name")
def forget(name: str) -> None:
    """Let the next worker that starts say which directory a root is."""
    with connected() as gaia:
        found = gaia.roots.forget(name)
    if not found:
        sys.exit(f"gaia: no root is known as {name}")
    click.echo(f"{name} is forgotten: workers that run go on serving it, the next one that starts enters its own")
