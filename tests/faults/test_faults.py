"""The short form of `python -m tests.faults`: one fault, times a sixtieth, a worker of one queue.

Only the alert and its end are looked at: that nothing else fires is the command's to say, on a machine of its own.
"""

from pathlib import Path

import pytest

from tests.faults.field import Field
from tests.faults.rows import DeadConsumer
from tests.support import debian, prometheus

FACTOR = 60.0
ALERT = ["GaiaWorkerNotReady"]
BOUND_S = 60.0

pytestmark = pytest.mark.skipif(debian.program("prometheus") is None, reason=prometheus.MISSING)


def test_a_dead_consumer_fires_its_alert_which_ends_with_it(tmp_path: Path) -> None:
    fault = DeadConsumer()
    with Field(tmp_path, FACTOR, queues=(fault.subject,)) as field:
        fault.make(field)
        assert field.fires(ALERT, BOUND_S, fault.subject), field.watch.pending()
        fault.clear(field)
        assert field.ends(ALERT, BOUND_S), field.watch.firing()
        assert field.watch.looks
