"""Work on many things at once that never takes longer than it may."""

import subprocess
import sys
import threading

from tasks.monitor.crew import Crew


def test_results_stand_in_the_order_of_the_things_and_what_fails_has_none() -> None:
    found = Crew(3, "gaia-test").results(lambda each: 12 // each, [1, 2, 0, 4, 6], 20.0)
    assert found == [12, 6, None, 3, 2]


def test_what_hangs_is_not_waited_for_and_keeps_its_place_until_it_ends() -> None:
    crew, release, done = Crew(2, "gaia-test"), threading.Event(), threading.Semaphore(0)

    def hang(each: int) -> int:
        release.wait(60)
        done.release()
        return each

    try:
        assert crew.results(hang, [1, 2, 3], 0.1) == [None, None, None]
        assert crew.results(hang, [4], 0.0) == [None]
    finally:
        release.set()
    assert done.acquire(timeout=20)
    assert done.acquire(timeout=20)
    assert crew.results(hang, [5, 6, 7], 20.0) == [5, 6, 7]


def test_what_hangs_keeps_no_process_from_ending() -> None:
    code = """
import threading
from tasks.monitor.crew import Crew
assert Crew(1, "gaia-test").results(lambda _: threading.Event().wait(), [1], 0.0) == [None]
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
