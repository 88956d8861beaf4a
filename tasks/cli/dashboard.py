"""`gaia dashboard`: the dashboards as a file that a browser opens, for any Prometheus."""

from pathlib import Path

import click

from config.settings import load, read


@click.command()
@click.option("--prometheus", metavar="URL", help="The Prometheus to ask; otherwise GAIA_MONITOR__PROMETHEUS.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default="gaia.html", show_default=True)
def dashboard(prometheus: str | None, output: Path) -> None:
    """Write the dashboards as one HTML file; it needs neither Grafana nor the monitor."""
    from tasks.monitor import dashboard as page  # help does without

    settings = load() if prometheus is None else read({"GAIA_MONITOR__PROMETHEUS": prometheus})
    address = settings.monitor.prometheus
    output.write_text(page.file(address))
    click.echo(f"{output} shows what {address} knows")
