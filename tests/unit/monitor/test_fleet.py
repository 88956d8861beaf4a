"""Profiles of many workers, asked at once, bounded together; of real ones: tests/integration/test_profiles.py."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gaia.store.nodes import Node
from tasks.monitor import fleet as module
from tasks.monitor.asking import Take
from tasks.monitor.fleet import Fleet
from tasks.profiling.profile import Frame, Kind, Profile
from tasks.runtime.pages import Asked, Page

TEXTS = Asked("/debug/pprof/threads", {"queue": "api"})
PROFILE = Asked("/debug/pprof/profile", {"queue": "api", "seconds": "1", "format": "folded"})


def nodes(count: int) -> list[Node]:
    return [Node(f"{number}@vm", "b" * 16, 1, "vm", ("api",), 10, "0.1.0", 0.0) for number in range(count)]


def taken(name: str) -> Page:
    found = Profile((Kind("cpu", "nanoseconds"),), 1.0)
    found.add((Frame(f"of_{name}", "x.py", 1),), 7.0)
    return Page(found.json())


def test_texts_are_asked_for_at_once() -> None:
    known = nodes(8)
    together = threading.Barrier(len(known))

    def ask(name: str, path: str, bound_s: float, take: Take) -> Page:
        together.wait(20)
        return Page(f"text of {name}".encode())

    page = Fleet(lambda: known, ask).answer(TEXTS)
    assert all(f"=== {each.name}\ntext of {each.name}".encode() in page.body for each in known)


def test_who_hangs_is_told_and_the_others_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MARGIN_S", 0.0)
    release = threading.Event()

    def ask(name: str, path: str, bound_s: float, take: Take) -> Page:
        if name == "1@vm":
            release.wait(60)
        return taken(name) if "profile" in path else Page(b"text")

    fleet = Fleet(lambda: nodes(3), ask)
    try:
        assert b"=== 1@vm\nno answer in time\n" in fleet.answer(TEXTS).body
        page = fleet.answer(PROFILE)
    finally:
        release.set()
    assert page.fields["Gaia-Workers"] == "2 of 3"
    assert b"of_0@vm" in page.body
    assert b"of_2@vm" in page.body


def test_what_the_workers_send_is_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BYTES", 2 * len(taken("0@vm").body))

    def ask(name: str, path: str, bound_s: float, take: Take) -> Page:
        page = taken(name)
        try:
            take(len(page.body))
        except ValueError as failure:
            return Page(str(failure).encode(), 502)
        return page

    assert Fleet(lambda: nodes(5), ask).answer(PROFILE).fields["Gaia-Workers"] == "2 of 5"


def test_few_requests_are_answered_at_once() -> None:
    begun, release = threading.Semaphore(0), threading.Event()

    def ask(name: str, path: str, bound_s: float, take: Take) -> Page:
        begun.release()
        release.wait(60)
        return Page(b"text")

    fleet = Fleet(lambda: nodes(1), ask)
    with ThreadPoolExecutor(module.AT_ONCE) as pool:
        try:
            found = [pool.submit(fleet.answer, TEXTS) for _ in range(module.AT_ONCE)]
            for _ in found:
                assert begun.acquire(timeout=20)
            assert fleet.answer(TEXTS).status == 503
        finally:
            release.set()
    assert {each.result().status for each in found} == {200}
