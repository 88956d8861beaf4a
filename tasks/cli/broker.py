"""Whether the Redis of the settings answers: asked once, before a program settles down to wait for it."""

import click

from config.settings import Settings
from gaia.errors import Unreachable
from gaia.store.connection import connect, reaching
from tasks.cli.state import DEFAULT, StateDir


def require(url: str, hint: str = "") -> None:
    """Ask for an answer.

    Raises:
        click.ClickException: if there is none, with the hint.
    """
    client = connect(url)
    try:
        with reaching(url):
            client.ping()
    except Unreachable as failure:
        told = f"{str(failure).rstrip('.')}; {hint}" if hint else str(failure)
        raise click.ClickException(told) from None
    finally:
        client.close()


def require_if_hinted(settings: Settings) -> None:
    """Ask for an answer if no Redis was named while a cluster runs here: a mistake, not an outage to be waited for.

    Raises:
        click.ClickException: if there is none.
    """
    if told := hint(settings):
        require(settings.redis_url, told)


def hint(settings: Settings) -> str:
    """Say how the cluster that runs here is reached, if there is one and the settings name no Redis; else nothing."""
    if "redis_url" in settings.model_fields_set or not StateDir(DEFAULT).announced():
        return ""
    return f'a cluster runs in {DEFAULT}: eval "$(gaia env)" leads to it'
