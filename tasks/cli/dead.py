"""`gaia dead`: the dead letters."""

from collections.abc import Callable, Iterable
from typing import Final

import click
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from gaia.errors import NotReplayable
from gaia.store.dead import DeadLetters
from tasks.cli.output import moment, plain
from tasks.cli.producer import connected

TABLE_WIDTH: Final = 120
"""Columns at least: an id that is cut could not be given to `show`."""


@click.group()
def dead() -> None:
    """Look at messages that no worker performed; replay or drop them."""


@dead.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
def list_letters(limit: int) -> None:
    """List them, the newest first."""
    with connected() as gaia:
        letters = gaia.dead.list(limit)
    if not letters:
        click.echo("no dead letters")
        return
    table = Table(Column("id", no_wrap=True), "at", "operation", Column("reason", overflow="fold"), "bytes")
    for each in letters:
        # Text, since what others wrote may look like rich's markup.
        told = (each.id, moment(each.at), each.operation or each.queue, each.reason, str(each.size_bytes))
        table.add_row(*(Text(plain(part)) for part in told))
    Console(width=max(Console().width, TABLE_WIDTH)).print(table)


@dead.command()
@click.argument("letter_id", metavar="ID")
def show(letter_id: str) -> None:
    """Show one: what was asked for, redacted, what happened to it, and why it is here."""
    with connected() as gaia:
        letter = gaia.dead.show(letter_id)
    if letter is None:
        message = f"there is no dead letter {letter_id}: `gaia dead list` names them"
        raise click.ClickException(message)
    rows = {
        "id": letter.id,
        "submitted": "unknown" if letter.submitted_at is None else moment(letter.submitted_at),
        "at": moment(letter.at),
        "queue": letter.queue,
        "operation": letter.operation,
        "call": letter.call,
        "reason": letter.reason,
        "error": letter.error,
        "attempts": letter.attempts,
        "lost leases": letter.lost_leases,
        "bytes": letter.size_bytes,
    }
    for name, value in rows.items():
        click.echo(f"{name:<12} {plain(str(value))}")
    for number, event in enumerate(letter.history):
        told = f"{moment(event.at)} {event.what}" + (f": {event.error}" if event.error else "")
        click.echo(f"{'' if number else 'history':<12} {plain(told)}")


@dead.command()
@click.argument("ids", nargs=-1, metavar="ID...")
@click.option("--all", "everything", is_flag=True, help="Every letter there is.")
def replay(ids: tuple[str, ...], *, everything: bool) -> None:
    """Queue calls again, with a fresh deadline."""
    _each(ids, everything=everything, act=lambda letters, each: letters.replay(each), done="queued again")


@dead.command()
@click.argument("ids", nargs=-1, metavar="ID...")
@click.option("--all", "everything", is_flag=True, help="Every letter there is.")
def drop(ids: tuple[str, ...], *, everything: bool) -> None:
    """Remove letters for good."""
    _each(ids, everything=everything, act=lambda letters, each: letters.drop(each), done="dropped")


def _each(ids: tuple[str, ...], *, everything: bool, act: Callable[[DeadLetters, str], bool], done: str) -> None:
    if bool(ids) == everything:
        raise click.UsageError("name one or more ids, or --all")
    failures = []
    with connected() as gaia:
        letters = gaia.dead
        chosen: Iterable[str] = letters.ids() if everything else ids
        for each in chosen:
            try:
                found = act(letters, each)
            except NotReplayable as failure:
                failures.append(str(failure))
                continue
            if found:
                click.echo(f"{each} {done}")
            elif not everything:
                failures.append(f"there is no dead letter {each}")
    if failures:
        raise click.ClickException("; ".join(failures))
