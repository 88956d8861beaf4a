"""`gaia queues`: how much waits, and pausing."""

import click
from rich.console import Console
from rich.table import Table

from tasks.cli.producer import connected


@click.group(invoke_without_command=True)
@click.pass_context
def queues(context: click.Context) -> None:
    """Show how much waits; pause and resume queues and operations."""
    if context.invoked_subcommand is None:
        show()


def show() -> None:
    """Print a row a queue."""
    with connected() as gaia:
        sizes, paused, delayed = gaia.queues.sizes(), gaia.queues.paused(), gaia.queues.delayed()
    table = Table("queue", "waiting", "by priority 0-2 / 3-5 / 6-8 / 9", "paused")
    for name, size in sizes.items():
        steps = " / ".join(str(each) for each in size.by_priority.values())
        table.add_row(name, str(size.waiting), steps, "yes" if size.paused else "")
    console = Console()
    console.print(table)
    console.print(f"delayed: {delayed}")
    operations = sorted(each for each in paused if "." in each)
    if operations:
        console.print(f"paused operations: {', '.join(operations)}")


@queues.command()
@click.argument("name")
def pause(name: str) -> None:
    """Start no more calls of a queue (api) or an operation (api.request); what runs goes on."""
    with connected() as gaia:
        gaia.queues.pause(name)
    click.echo(f"{name} is paused")


@queues.command()
@click.argument("name")
def resume(name: str) -> None:
    """Let a queue or an operation run again."""
    with connected() as gaia:
        given = gaia.queues.resume(name)
    click.echo(f"{name} runs again" + (f"; {given} calls that were put aside are queued" if given else ""))
