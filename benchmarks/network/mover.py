"""One process that moves bytes within the cluster's bandwidth: `python mover.py URL FILE SECONDS`.

It begins at the monotonic time that it reads, and writes down time and size of every chunk that it might move.
"""

import struct
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from config import settings  # noqa: E402 - from this tree
from gaia.errors import DeadlineExceeded, LimitExceeded  # noqa: E402
from tasks.limits.cluster import Limits  # noqa: E402
from tasks.limits.policy import levels  # noqa: E402
from tasks.limits.protocols import Away  # noqa: E402
from tasks.limits.throttle import Throttle  # noqa: E402
from tasks.scope import Scope  # noqa: E402

CHUNK = struct.Struct("<dd")
WANTED_BYTES = 64 * 1024


def main() -> None:
    """Move without pause."""
    url, file, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    limits = Limits.in_redis(url, settings.Limits())
    throttle = Throttle(limits, levels(host="files.example.com"), if_away=Away.FAIL_CLOSED)
    throttle.rate_per_s()  # reads what is set
    chunks = []
    print("ready", flush=True)
    begin = float(sys.stdin.readline())
    time.sleep(max(0.0, begin - time.monotonic()))
    scope = Scope.lasting(seconds)
    try:
        while True:
            size = throttle.leave(scope, WANTED_BYTES)
            chunks.append(CHUNK.pack(time.monotonic(), size))
    except (LimitExceeded, DeadlineExceeded):
        limits.close()
    file.write_bytes(b"".join(chunks))


if __name__ == "__main__":
    main()
