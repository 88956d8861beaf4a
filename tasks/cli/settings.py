"""`gaia settings`: every variable, what it is for, and its default."""

import json
from collections.abc import Iterator

import click
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from config.section import Section
from config.settings import PREFIX, Settings

HEADER = """# Settings

Environment variables, read once when a process starts. A variable that begins with `GAIA_` and is none of these stops
the boot, as does a value that does not fit; the message names it. Lists and objects are JSON.
A program, user or control group that this machine has not stops the workers of the queue that needs it; a directory
that is not there yet makes them unhealthy or degraded (workers.md).

This page is made by `gaia settings --markdown`.

| variable | default | what it is for |
|---|---|---|
"""


@click.command()
@click.option("--markdown", is_flag=True, help="As the page docs/settings.md.")
def settings(*, markdown: bool) -> None:
    """List every setting; values are not read."""
    if markdown:
        click.echo(page(), nl=False)
        return
    for name, default, purpose in rows():
        click.echo(f"{name}={default}\n    {purpose}")


def page() -> str:
    """Give the text of docs/settings.md."""
    lines = [f"| `{name}` | {f'`{default}`' if default else ''} | {purpose} |" for name, default, purpose in rows()]
    return HEADER + "\n".join(lines) + "\n"


def rows() -> Iterator[tuple[str, str, str]]:
    """Give name, default and purpose of each variable."""
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            for inner, leaf in section.model_fields.items():
                yield _row(f"{PREFIX}{name}__{inner}", leaf)
        else:
            yield _row(f"{PREFIX}{name}", field)


def _row(name: str, field: FieldInfo) -> tuple[str, str, str]:
    default = field.get_default(call_default_factory=True)
    if default is None or isinstance(default, SecretStr):
        shown = ""
    elif isinstance(default, str):
        shown = default
    else:
        shown = json.dumps(default, default=str)
    return name.upper(), shown, " ".join((field.description or "").split())
