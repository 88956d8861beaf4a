"""What programs came to, as the metrics have it."""

from typing import get_args

from gaia.contracts import process
from tasks import metrics
from tasks.process.counters import Counters


def test_every_reason_is_counted_from_the_first_end_on() -> None:
    Counters(1)
    for reason in get_args(process.Reason):
        assert metrics.REGISTRY.get_sample_value("gaia_process_ended_total", {"reason": reason}) is not None
