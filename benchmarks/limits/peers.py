"""One contender, one measurement: `python peers.py NAME URL SECONDS RATE` prints a line of JSON.

Asks for leave RATE times a second (0: without pause) at one host, from one process, for so long; tells how often it
was given and what CPU that took. It runs in Gaia's environment or in the peers', so it imports what its contender
needs, alone.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

LIMIT = 1000
BURST = 1000
HOST = "api.example.com"
Ask = Callable[[], Any]


def nothing(url: str) -> Ask:
    """The loop alone."""
    del url
    return lambda: True


def gaia(url: str) -> Ask:
    """The whole of it: settings watched, two levels stacked (cluster, host), tokens leased ahead, metrics."""
    from config import settings
    from tasks.limits.cluster import Limits
    from tasks.limits.policy import levels
    from tasks.limits.protocols import Admitted, Away

    limits, names = Limits.in_redis(url, settings.Limits(host_rate_per_s=LIMIT, host_burst=BURST)), levels(host=HOST)
    return lambda: isinstance(limits.ask(names, if_away=Away.FAIL_OPEN), Admitted)


def gaia_exact(url: str) -> Ask:
    """The same two levels, a call each time."""
    from tasks.limits.protocols import Admitted, Away, Bucket
    from tasks.limits.reach import Reach
    from tasks.limits.shared import SharedTokens

    tokens = SharedTokens(Reach.to(url))
    stack = [Bucket("rate:global", LIMIT, BURST), Bucket(f"rate:{HOST}", LIMIT, BURST)]
    return lambda: isinstance(tokens.admit(stack, if_away=Away.FAIL_OPEN), Admitted)


def gaia_breaker(url: str) -> Ask:
    """A passage through a closed circuit, and its success."""
    from config import settings
    from tasks.limits.cluster import Limits
    from tasks.limits.protocols import Away

    limits = Limits.in_redis(url, settings.Limits())

    def ask() -> bool:
        limits.succeeded(limits.enter(HOST, if_away=Away.FAIL_OPEN))
        return True

    return ask


def limits_fixed(url: str) -> Ask:
    """The `limits` library, fixed window: its cheapest strategy. One level."""
    import limits
    from limits.storage import RedisStorage
    from limits.strategies import FixedWindowRateLimiter

    limiter, rate = FixedWindowRateLimiter(RedisStorage(url)), limits.RateLimitItemPerSecond(LIMIT)
    return lambda: limiter.hit(rate, HOST)


def pyrate(url: str) -> Ask:
    """pyrate-limiter's Redis bucket, a sliding log. One level."""
    import redis
    from pyrate_limiter import Limiter, Rate, RedisBucket

    bucket = RedisBucket.init([Rate(LIMIT, 1000)], redis.Redis.from_url(url), HOST)
    limiter = Limiter(bucket)
    return lambda: limiter.try_acquire(HOST, blocking=False)


def pybreaker(url: str) -> Ask:
    """A call of pybreaker over Redis, through a closed circuit."""
    import redis
    from pybreaker import STATE_CLOSED, CircuitBreaker, CircuitRedisStorage

    breaker = CircuitBreaker(fail_max=5, state_storage=CircuitRedisStorage(STATE_CLOSED, redis.Redis.from_url(url)))
    return lambda: breaker.call(lambda: True)


CONTENDERS = {each.__name__: each for each in (nothing, gaia, gaia_exact, limits_fixed, pyrate)}
BREAKERS = {each.__name__: each for each in (gaia_breaker, pybreaker)}


def main() -> None:
    """Measure after a second of warm-up; what the warm-up did is told, too, for the count of calls."""
    name, url, seconds, rate = sys.argv[1:]
    ask = (CONTENDERS | BREAKERS)[name](url)
    warm_up = run(ask, 1.0, int(rate))
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.process_time()
    asked, given = run(ask, float(seconds), int(rate))
    cpu_s = time.process_time() - began
    print(json.dumps({"asked": asked, "given": given, "cpu_s": cpu_s, "warm_up": warm_up}), flush=True)
    sys.stdin.readline()


def run(ask: Ask, seconds: float, rate: int) -> tuple[int, int]:
    """Ask at a pace; give how often, and how often leave was given."""
    begins = time.monotonic()
    asked = given = 0
    while (now := time.monotonic()) < begins + seconds:
        if rate and asked >= (now - begins) * rate:
            time.sleep(0.001)
            continue
        given += bool(ask())
        asked += 1
    return asked, given


if __name__ == "__main__":
    main()
