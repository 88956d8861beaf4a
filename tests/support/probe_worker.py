"""A worker of the test operations: `python -m tests.support.probe_worker`."""

import sys

import tests.support.probe  # noqa: F401 - imported for its effect: it enters the handlers
from tasks.app import app
from tasks.runtime import worker

if __name__ == "__main__":
    name = worker.node_name(["probe"], None)
    sys.exit(worker.run(app, ["probe"], calls_at_once=4, name=name, log_level="INFO"))
