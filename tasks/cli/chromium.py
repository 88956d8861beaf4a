"""`gaia chromium`: find Chromium, or install it."""

import click

from config.settings import load


@click.command()
@click.option("--install", is_flag=True, help="Install it if there is none.")
@click.option("--full", is_flag=True, help="The full Chromium, which sessions with extensions need.")
def chromium(*, install: bool, full: bool) -> None:
    """Print the path of the Chromium that workers use."""
    from tasks.browser import chromium as browser  # the name is this command's

    settings = load().browser
    setting = settings.full_chromium if full else settings.chromium
    find, make = (browser.find_full, browser.install_full) if full else (browser.find, browser.install)
    if install and setting is None:
        click.echo(make(lambda line: click.echo(line, err=True)))
    else:
        click.echo(find(setting))
