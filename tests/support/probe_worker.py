"""A worker of the test operations: `python -m tests.support.probe_worker [NAME]`."""

import sys

import tests.support.probe  # noqa: F401 - imported for its effect: it enters the handlers
from config.settings import load
from tasks.runtime import worker


def main(name: str | None = None) -> None:
    """Work until a signal ends it."""
    from tasks.app import app  # it reads the settings, which a forked process has only now

    settings = load().worker
    sys.exit(
        worker.run(
            app,
            ["probe"],
            calls_at_once=4,
            name=worker.node_name(["probe"], name),
            log_level="INFO",
            memory_bytes=settings.memory_bytes,
            grace_s=settings.grace_s,
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
