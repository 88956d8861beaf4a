"""A worker of the test operations: `python -m tests.support.probe_worker [NAME]`."""

import sys

import tests.support.probe  # noqa: F401 - imported for its effect: it enters the handlers
from config.settings import load
from tasks.app import app
from tasks.runtime import worker

if __name__ == "__main__":
    settings = load().worker
    sys.exit(
        worker.run(
            app,
            ["probe"],
            calls_at_once=4,
            name=worker.node_name(["probe"], sys.argv[1] if len(sys.argv) > 1 else None),
            log_level="INFO",
            memory_bytes=settings.memory_bytes,
            grace_s=settings.grace_s,
        )
    )
