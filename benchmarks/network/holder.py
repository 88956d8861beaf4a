"""One process that takes and gives back connections: `python holder.py URL FILE LIMIT ATTEMPTS`; the begin is read.

It writes a line when it was given a slot and one before it gives it back, with the monotonic time: never more than it
held.
"""

import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from config import settings  # noqa: E402 - from this tree
from gaia.errors import LimitExceeded  # noqa: E402
from tasks.limits.cluster import Limits  # noqa: E402
from tasks.limits.protocols import Lease  # noqa: E402
from tasks.scope import Scope  # noqa: E402

HOST = "api.example.com"
TTL_S = 5.0
HELD_S = 0.05


def main() -> None:
    """Have up to ten at once, so that eight processes want more than there are."""
    url, file, limit, attempts = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    limits = Limits.in_redis(url, settings.Limits(host_connections=limit))
    slots = limits.policy.connections(HOST)
    held: list[tuple[float, Lease]] = []
    print("ready", flush=True)
    time.sleep(max(0.0, float(sys.stdin.readline()) - time.monotonic()))
    with file.open("a", buffering=1) as output:
        for _ in range(attempts):
            try:
                lease = limits.lend(Scope.lasting(30), slots, ttl_s=TTL_S, longest_s=0.001)
                held.append((time.monotonic(), lease))
                output.write(f"+ {lease.id} {held[-1][0]:.6f}\n")
            except LimitExceeded:
                output.write("x\n")
            while held and (len(held) >= 10 or time.monotonic() - held[0][0] > HELD_S):  # noqa: PLR2004 - as said
                _, oldest = held.pop(0)
                output.write(f"- {oldest.id} {time.monotonic():.6f}\n")
                limits.give_back(oldest)
        for _, each in held:
            output.write(f"- {each.id} {time.monotonic():.6f}\n")
            limits.give_back(each)
    limits.close()


if __name__ == "__main__":
    main()
