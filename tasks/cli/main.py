"""The `gaia` command. A subcommand's module is imported when it is used, so help comes at once."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

import click

from gaia.errors import GaiaError
from gaia.redaction import scrub
from tasks.cli.output import plain

COMMANDS: Final = {
    "up": "Run the whole cluster on this machine until Ctrl-C.",
    "env": "Print the shell lines that point producers at the running cluster.",
    "demo": "Run a cluster and a small real workload, and show what came back.",
    "worker": "Run one worker process for the named queues.",
    "queues": "Show how much waits; pause and resume.",
    "roots": "Show the roots of files that the cluster knows; forget one.",
    "limits": "Set and show what holds for the whole cluster: rates, concurrency, bandwidth, breakers.",
    "dead": "Look at dead letters; replay or drop them.",
    "settings": "List every setting.",
    "monitor": "Serve the cluster's metrics and health.",
    "dashboard": "Write the dashboards as one HTML file, for any Prometheus.",
    "profile": "Profile a running worker: CPU, heap, threads, tasks.",
    "flower": "Show workers and tasks on a web page.",
    "chromium": "Find Chromium, or install it.",
}
"""Each is the command of that name in the module of that name."""

DISTRIBUTION: Final = "gaia-workers"


class _Commands(click.Group):
    """Subcommands by name; help needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = getattr(import_module(f"tasks.cli.{cmd_name}"), cmd_name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=DISTRIBUTION, prog_name="gaia")
def gaia() -> None:
    """Gaia: a worker cluster that does side effects for other programs."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a failure of ours is one line on standard error and exit code 1, a wrong command line 2."""
    try:
        outcome: Any = gaia.main(arguments, prog_name="gaia", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as failure:
        # A command that is none without a subcommand: its help is the answer, as it is.
        print(failure.format_message(), file=sys.stderr)
        sys.exit(failure.exit_code)
    except Exception as failure:
        sentence = _sentence(failure)
        if sentence is None:
            raise
        print(f"gaia: {plain(scrub(sentence))}", file=sys.stderr)
        sys.exit(failure.exit_code if isinstance(failure, click.ClickException) else 1)
    sys.exit(outcome)


def _sentence(failure: Exception) -> str | None:
    """Give the one line that tells an expected failure, None for a defect."""
    if isinstance(failure, click.UsageError):
        context = failure.ctx.command_path if failure.ctx else "gaia"
        # click lists choices in a column.
        told = " ".join(failure.format_message().split())
        return f"{told.removesuffix('.')}. See `{context} --help`."
    if isinstance(failure, click.ClickException):
        return failure.format_message()
    if isinstance(failure, OSError):
        what = failure.strerror or type(failure).__name__
        return f"{what}: {failure.filename}" if failure.filename else what
    # Settings are imported by commands that need them; help does without.
    settings = sys.modules.get("config.settings")
    ours = (GaiaError, settings.SettingsError) if settings else (GaiaError,)
    return str(failure) if isinstance(failure, ours) else None


if __name__ == "__main__":
    main()
