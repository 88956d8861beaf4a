"""The threads that run calls."""

import threading
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from tasks.runtime.pool import Pool
from tests.support.waiting import until

THREADS = 3


@pytest.fixture
def pool() -> Iterator[Pool]:
    found = Pool(THREADS)
    found.start()
    yield found
    found.stop()
    assert not [each for each in threading.enumerate() if each.name.startswith("gaia-call")]


def test_no_thread_runs_before_the_start() -> None:
    Pool(THREADS)
    assert not [each for each in threading.enumerate() if each.name.startswith("gaia-call")]


def test_as_many_calls_run_at_once_as_there_are_threads(pool: Pool) -> None:
    together = threading.Barrier(THREADS + 1)
    for _ in range(THREADS):
        pool.put(lambda: together.wait(20))
    together.wait(20)


def test_a_call_of_celery_tells_who_took_it_and_how_it_ended(pool: Pool) -> None:
    accepted: SimpleQueue[int] = SimpleQueue()
    ended: SimpleQueue[int] = SimpleQueue()
    pool.apply_async(
        lambda a, b: a + b, (1,), {"b": 2}, accept_callback=lambda pid, _: accepted.put(pid), callback=ended.put
    )
    assert ended.get(timeout=20) == 3
    assert accepted.get(timeout=20) > 0


@pytest.mark.parametrize("failure", [ValueError("x"), SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_no_failure_ends_a_thread(pool: Pool, failure: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise failure

    for _ in range(THREADS * 2):
        pool.put(fail)
    test_as_many_calls_run_at_once_as_there_are_threads(pool)
    assert caplog.text.count("could not be brought to its end") == THREADS * 2


def test_stop_waits_for_what_runs_and_drops_what_has_not_begun() -> None:
    pool = Pool(1)
    pool.start()
    begun, release, stopped = threading.Event(), threading.Event(), threading.Event()
    ran: list[str] = []

    def hold() -> None:
        begun.set()
        release.wait(20)
        ran.append("held")

    pool.put(hold)
    pool.put(lambda: ran.append("never"))
    assert begun.wait(20)
    stopper = threading.Thread(target=lambda: (pool.stop(), stopped.set()))
    stopper.start()
    until(pool._calls.qsize, what="the word to the thread that there is no more")
    assert not stopped.wait(0.05)
    release.set()
    assert stopped.wait(20)
    stopper.join(20)
    assert ran == ["held"]


def test_terminate_waits_for_nothing() -> None:
    pool = Pool(1)
    pool.start()
    begun, release = threading.Event(), threading.Event()
    pool.put(lambda: (begun.set(), release.wait(20)))
    assert begun.wait(20)
    (thread,) = pool._threads
    pool.terminate()
    assert thread.is_alive()
    assert thread.daemon
    release.set()
    thread.join(20)
    assert not thread.is_alive()


def test_nothing_of_a_call_is_kept_while_no_other_comes(pool: Pool) -> None:
    class Thing:
        pass

    gone = threading.Event()

    class Noticed(Thing):
        def __del__(self) -> None:
            gone.set()

    def use(thing: Thing) -> None:
        del thing

    def put() -> None:
        thing = Noticed()
        pool.put(lambda: use(thing))

    put()
    assert gone.wait(20)


def test_its_size_shows(pool: Pool) -> None:
    assert pool.info["max-concurrency"] == THREADS
    assert pool.info["threads"] == THREADS
    assert pool.num_processes == THREADS
