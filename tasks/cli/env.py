"""`gaia env`: the shell line that points producers at the running cluster."""

from pathlib import Path

import click

from tasks.cli.state import DEFAULT, StateDir


@click.command()
@click.option("--state-dir", type=click.Path(path_type=Path), default=DEFAULT, help="That of `gaia up`.")
def env(state_dir: Path) -> None:
    r"""Print the address of the cluster that runs here: eval "$(gaia env)"."""
    state = StateDir(state_dir)
    url = state.announced()
    if url is None:
        hint = "it is still starting" if state.held() else "start one with `gaia up`, or name its --state-dir"
        raise click.ClickException(f"no cluster is ready in {state.path}: {hint}")
    quoted = url.replace("'", "'\"'\"'")
    click.echo(f"export GAIA_REDIS_URL='{quoted}'")
