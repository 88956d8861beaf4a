"""The pace of streams: bytes of the cluster's bandwidth, and of what is set for files alone.

`gaia limits set key:files --bytes-per-s N` sets the latter, `GAIA_LIMITS__BYTES_PER_S` the whole cluster's.
"""

from typing import Final

from tasks.files.streams import Pace
from tasks.limits.cluster import Limits
from tasks.limits.policy import levels
from tasks.limits.protocols import Away
from tasks.limits.throttle import Throttle
from tasks.scope import Scope

NAMES: Final = levels(key="files")


def paced(limits: Limits) -> Pace:
    """Give a pace that waits for the byte bucket as long as the call may; with Redis away it lets everything move."""
    throttle = Throttle(limits, NAMES, if_away=Away.FAIL_OPEN)

    def pace(size_bytes: int, scope: Scope) -> int:
        return throttle.leave(scope, size_bytes)

    return pace
