"""Which cluster a command speaks to: the one that GAIA_REDIS_URL names, else the one that runs here."""

import os

import click

from gaia import Gaia
from gaia.client import URL_VARIABLE
from tasks.cli.state import DEFAULT, StateDir


def connected() -> Gaia:
    """Give a producer.

    Raises:
        click.ClickException: if no cluster is named and none runs here.
    """
    url = os.environ.get(URL_VARIABLE) or StateDir(DEFAULT).announced()
    if not url:
        message = f"no cluster is named and none runs in {DEFAULT}: set {URL_VARIABLE}, or start one with `gaia up`"
        raise click.ClickException(message)
    return Gaia(url)
