"""`gaia env`: the shell lines that point producers at the running cluster."""

from pathlib import Path

import click

from tasks.cli.state import DEFAULT, StateDir


@click.command()
@click.option("--state-dir", type=click.Path(path_type=Path), default=DEFAULT, help="That of `gaia up`.")
def env(state_dir: Path) -> None:
    r"""Print the addresses of the cluster that runs here: eval "$(gaia env)"."""
    state = StateDir(state_dir)
    variables = state.announced()
    if not variables:
        hint = "it is still starting" if state.held() else "start one with `gaia up`, or name its --state-dir"
        raise click.ClickException(f"no cluster is ready in {state.path}: {hint}")
    for name, value in variables.items():
        quoted = value.replace("'", "'\"'\"'")
        click.echo(f"export {name}='{quoted}'")
