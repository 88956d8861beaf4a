"""Who a process is, and what it holds."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from gaia.sticky import HolderId
from tasks.runtime import identity
from tasks.runtime.identity import Identity


def test_each_start_has_a_boot_of_its_own() -> None:
    assert Identity("a@h").boot != Identity("a@h").boot


def test_what_is_held_bears_the_node_and_boot_until_it_is_released() -> None:
    own = Identity("a@h.example")
    made = own.hold()
    found = HolderId.parse(made)
    assert (found.node, found.boot) == ("a@h.example", own.boot)
    assert own.owns(found)
    assert not Identity("a@h.example").owns(found)
    assert not Identity("b@h", own.boot).owns(found)
    assert own.holds_any
    for _ in range(2):
        own.release(made)
        assert not own.holds_any


def test_many_threads_hold_and_release() -> None:
    own = Identity("a@h")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: own.hold(), range(500)))
        assert len(set(made)) == 500
        list(pool.map(own.release, made))
    assert not own.holds_any


def test_a_process_without_a_worker_has_no_identity() -> None:
    code = "from tasks.runtime import identity; identity.own()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "no worker runs in this process" in done.stderr


def test_the_identity_of_a_process_is_that_of_its_last_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_own", [])
    first = identity.begin("a@h")
    assert identity.own() is first
    second = identity.begin("a@h")
    assert identity.own() is second
    assert first.boot != second.boot


def test_identity_knows_no_celery() -> None:
    code = "import sys; from tasks.runtime import identity; print({'celery', 'kombu', 'redis'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
