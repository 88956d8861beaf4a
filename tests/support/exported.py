"""What a worker and the monitor really export, by name."""

from config.watching import Monitor as Settings
from tasks import metrics
from tasks.monitor.calls import Calls
from tasks.monitor.listener import Listener
from tasks.monitor.neighbours import Neighbours
from tasks.monitor.sampler import Sampler
from tasks.monitor.series import Book

NOWHERE = "redis://127.0.0.1:1/0"


def families() -> set[str]:
    """Give the names of families; counters of a worker are without `_total`, those of the monitor with it."""
    book = Book()
    calls = Calls(book)
    Sampler(NOWHERE, Settings(), calls, book)
    Listener(NOWHERE, calls, book)
    Neighbours(lambda: (), None, book)
    own = {"gaia_monitor_sample_age_seconds", "gaia_monitor_event_lag_seconds", "gaia_monitor_tasks_under_way"}
    return own | {each.name for each in metrics.REGISTRY.collect()} | {each.name for each in book.families}


def samples() -> set[str]:
    """Give the names that a query can ask for."""
    found = set()
    for each in metrics.REGISTRY.collect():
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(each.type, [""])
        found |= {each.name + ending for ending in endings}
    own = families() - {each.name for each in metrics.REGISTRY.collect()}
    return found | own | {name + ending for name in own for ending in ("_bucket", "_sum", "_count")}
