"""The short form of `python -m tests.faults`: one fault, times a sixtieth, a worker of one queue.

That nothing fires under the load alone is looked at before the fault."""

from pathlib import Path

import pytest

from tests.faults.row import run
from tests.faults.rows import DeadConsumer
from tests.support import debian, prometheus

FACTOR = 60.0
QUEUES = ("network",)

pytestmark = pytest.mark.skipif(debian.program("prometheus") is None, reason=prometheus.MISSING)


class Deaf(DeadConsumer):
    """A dead consumer, until the first of its alerts fires."""

    expected = ("GaiaWorkerNotReady",)


def test_a_dead_consumer_fires_what_is_expected_and_nothing_else(tmp_path: Path) -> None:
    account = run(Deaf(), tmp_path, FACTOR, queues=QUEUES)
    assert account.sound, account
    assert account.fired["GaiaWorkerNotReady"].expected
