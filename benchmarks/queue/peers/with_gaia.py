"""Gaia: operations through wiring, submitted by `Gaia.submit`."""

import itertools
import os
import sys
import time

import bench

from gaia import Gaia
from gaia.contracts.base import Call, Result, contract

os.environ.setdefault("GAIA_REDIS_URL", bench.URL)


@contract
class Done(Result):
    """One."""

    n: int = 1


@contract
class Empty(Call[Done], operation="bench.empty"):
    """Do nothing."""


@contract
class Incr(Call[Done], operation="bench.incr"):
    """Call Redis once."""


@contract
class Late(Call[Done], operation="bench.late"):
    """Note the delay."""

    sent: float = 0.0


@contract
class Hold(Call[Done], operation="bench.hold"):
    """Say that it runs, and run until the worker ends."""


CALLS = {"empty": Empty, "incr": Incr, "late": Late, "hold": Hold}


def enter_handlers() -> None:
    """Enter the operations as a worker's."""
    from tasks.scope import Scope
    from tasks.wiring import handles

    redis = bench.client()

    @handles(Empty)
    def empty(call: Empty, scope: Scope) -> Done:
        del call, scope
        return Done(bench.count())

    @handles(Incr)
    def incr(call: Incr, scope: Scope) -> Done:
        del call, scope
        redis.incr(bench.COUNTER)
        return Done(bench.count())

    @handles(Late)
    def late(call: Late, scope: Scope) -> Done:
        del scope
        bench.late(call.sent)
        return Done()

    @handles(Hold)
    def hold(call: Hold, scope: Scope) -> Done:
        del call
        bench.mark(pid=os.getpid())
        while True:
            scope.check()
            scope.cancelled.wait(1)


def submit() -> None:
    """Submit calls one by one."""
    with Gaia(bench.URL) as g:
        bench.produce(
            lambda task, *arguments: g.submit(CALLS[task](*arguments), deadline=bench.DAY_S, result=bench.RESULTS)
        )


def submit_many() -> None:
    """Submit calls in bulk."""
    times = int(sys.argv[2])
    with Gaia(bench.URL) as g:
        g.submit_many([Empty()])
        calls = list(itertools.repeat(Empty(), times))
        wall, cpu = time.monotonic(), time.process_time()
        g.submit_many(calls)
        bench.report(times, time.monotonic() - wall, time.process_time() - cpu)


def main() -> None:
    """Produce."""
    if sys.argv[1] == "submit_many":
        submit_many()
    else:
        submit()


def work() -> None:
    """Work as `gaia worker` does, which knows no queue of this name."""
    from tasks.app import app
    from tasks.runtime import worker

    app.conf.worker_send_task_events = bench.EVENTS
    name = worker.node_name(["bench"], None)
    sys.exit(worker.run(app, ["bench"], calls_at_once=bench.THREADS, name=name, log_level="WARNING"))


if not bench.PRODUCES:
    enter_handlers()
