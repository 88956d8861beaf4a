"""`gaia chromium`: find Chromium, or install it."""

import click

from config.settings import load


@click.command()
@click.option("--install", is_flag=True, help="Install it if there is none.")
def chromium(*, install: bool) -> None:
    """Print the path of the Chromium that workers use."""
    from tasks.browser import chromium as browser  # the name is this command's

    setting = load().browser.chromium
    if install and setting is None:
        click.echo(browser.install(lambda line: click.echo(line, err=True)))
    else:
        click.echo(browser.find(setting))
