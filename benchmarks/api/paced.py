"""Sends 1000 requests a second to one host: `python paced.py single|many REDIS_URL URL SECONDS`.

The service itself in this process, with limits over Redis and no queue, so that whatever Redis hears is of limits.
After a second of warm-up it waits for a line, measures, and tells how many it sent.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from config import settings
from gaia.contracts import api
from tasks.api.service import ApiService
from tasks.egress.gateway import Gateway
from tasks.egress.judge import Judge
from tasks.egress.resolver import Resolver
from tasks.limits.cluster import Limits
from tasks.scope import Scope

RATE_PER_S = 1000
BATCH = 100
THREADS = 100


def main() -> None:
    """Send."""
    way, redis_url, url, seconds = sys.argv[1:]
    limits = Limits.in_redis(redis_url, settings.Limits())
    judge = Judge([f"127.0.0.1/32:{urlsplit(url).port}"])
    gateway = Gateway(judge, Resolver(hosts=Path("/dev/null")))
    service = ApiService(settings=settings.Api(), gateway=gateway, limits=limits)
    request = api.Request(url=url, tenant="bench")

    def single() -> int:
        return int(service.request(request, Scope.lasting(30)).status == 200)  # noqa: PLR2004

    def many() -> int:
        found = service.request_many(api.RequestMany((request,) * BATCH, concurrency=BATCH), Scope.lasting(30))
        return sum(each.ok for each in found.items)

    send, size = (single, 1) if way == "single" else (many, BATCH)
    with ThreadPoolExecutor(THREADS) as pool:
        paced(pool, send, size, 1.0)
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.monotonic()
        sent = paced(pool, send, size, float(seconds))
        print(json.dumps({"sent": sent, "wall_s": time.monotonic() - began}), flush=True)
        sys.stdin.readline()
    service.close()
    limits.close()


def paced(pool: ThreadPoolExecutor, send: "object", size: int, seconds: float) -> int:
    """Begin so many a second; give how many were answered."""
    begins, running = time.monotonic(), []
    while (now := time.monotonic()) < begins + seconds:
        if len(running) * size < (now - begins) * RATE_PER_S:
            running.append(pool.submit(send))  # type: ignore[arg-type]  # either of the two above
        else:
            time.sleep(0.0005)
    return sum(each.result() for each in running)


if __name__ == "__main__":
    main()
