"""A worker of the operation that leaks: `python -m tests.soak.leaking_worker`."""

import sys

import tests.soak.leaks
from config.settings import load
from tasks.app import app
from tasks.runtime import worker

if __name__ == "__main__":
    queue = tests.soak.leaks.QUEUE
    sys.exit(
        worker.run(
            app,
            [queue],
            calls_at_once=worker.concurrency([queue], load().worker.concurrency),
            name=worker.node_name([queue], queue),
            log_level="INFO",
        )
    )
