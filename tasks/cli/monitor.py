"""`gaia monitor`: the cluster's metrics and health, in the foreground."""

import logging
import signal
import sys
import threading
from typing import Any

import click

from config.settings import load
from tasks.cli import broker, notify
from tasks.cli.flower import address


@click.command()
def monitor() -> None:
    """Serve the cluster's metrics and health until SIGTERM.

    One on each machine; a Prometheus finds the machine's workers by it.
    """
    settings = load()
    broker.require_if_hinted(settings)
    logging.basicConfig(level=settings.worker.log_level, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)

    from tasks.monitor.monitor import Monitor  # help does without

    host, port = settings.monitor.host, settings.monitor.port
    try:
        found = Monitor(settings)
    except OSError as failure:
        raise click.ClickException(
            f"the monitor cannot have port {port} on {host} ({failure.strerror}): "
            "choose another with GAIA_MONITOR__PORT"
        ) from None
    ended = threading.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: _end(ended))
    found.start()
    click.echo(f"The monitor serves metrics and health at {address(host, found.port)}")
    notify.ready()
    ended.wait()
    found.close()


def _end(ended: threading.Event, *_: Any) -> None:
    ended.set()
