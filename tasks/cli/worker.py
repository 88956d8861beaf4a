"""`gaia worker`: one worker process."""

import sys
from typing import Final

import click

from config.settings import load
from gaia import wire
from tasks.cli import broker, notify

NAME_LIMIT: Final = 64
"""Characters: percent-encoded, with the host, a name must fit into ids."""


def _sound(context: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    del context, parameter
    if name is not None and not (
        0 < len(name) <= NAME_LIMIT and name.isprintable() and name.strip() and "%" not in name
    ):
        raise click.BadParameter(f"must be 1 to {NAME_LIMIT} printable characters without %")
    return name


@click.command()
@click.argument("queues", nargs=-1, required=True, type=click.Choice(wire.QUEUES), metavar="QUEUE...")
@click.option("--concurrency", type=click.IntRange(1, 1000), help="Calls at once, in threads.")
@click.option(
    "--name", callback=_sound, help="Node name without the host; unique on the machine. By default it holds the pid."
)
def worker(queues: tuple[str, ...], concurrency: int | None, name: str | None) -> None:
    """Work on the given queues until SIGTERM.

    Queues: api, files, browser, process, network.
    """
    settings = load()
    # Celery would retry for ever; at the start, a wrong address is far more likely than an outage.
    broker.require(settings.redis_url, broker.hint(settings))

    from celery import signals

    from tasks.app import app  # it reads the settings: not before they are known to be sound
    from tasks.runtime import worker as runtime

    signals.worker_ready.connect(lambda **_: notify.ready(), weak=False)
    setting = concurrency or settings.worker.concurrency
    sys.exit(
        runtime.run(
            app,
            queues,
            calls_at_once=runtime.concurrency(queues, setting),
            name=runtime.node_name(queues, name),
            log_level=settings.worker.log_level,
            memory_bytes=settings.worker.memory_bytes,
            grace_s=settings.worker.grace_s,
        )
    )
