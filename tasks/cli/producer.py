"""Which cluster a command speaks to: the one that GAIA_REDIS_URL names, else the one that runs here."""

import os

import click

from gaia import Gaia
from gaia.client import RESULT_URL_VARIABLE, URL_VARIABLE
from gaia.store.artifacts import URL_VARIABLE as ARTIFACTS_URL
from tasks.cli.state import DEFAULT, StateDir


def connected() -> Gaia:
    """Give a producer.

    Raises:
        click.ClickException: if no cluster is named and none runs here.
    """
    url = os.environ.get(URL_VARIABLE)
    if url:
        return Gaia(url)
    found = StateDir(DEFAULT).announced()
    if not found:
        message = f"no cluster is named and none runs in {DEFAULT}: set {URL_VARIABLE}, or start one with `gaia up`"
        raise click.ClickException(message)
    url = found[URL_VARIABLE]
    return Gaia(url, found.get(RESULT_URL_VARIABLE, url), found.get(ARTIFACTS_URL))


def here() -> dict[str, str]:
    """Give the variables that lead to the cluster that runs here; none if the environment names another."""
    found = StateDir(DEFAULT).announced()
    named = os.environ.get(URL_VARIABLE)
    return found if not named or named == found.get(URL_VARIABLE) else {}
