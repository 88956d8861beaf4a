"""Tabs opened ahead, seats, recycling, and slots of the cluster's limits, in a real Chromium."""

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest

from config import settings as config
from gaia.contracts import browser as b
from gaia.errors import InvalidCall, PoolExhausted, SessionMissing
from gaia.store.limits import Limit
from tasks import metrics
from tasks.browser.pool import EVENTS
from tasks.browser.service import BrowserService
from tasks.limits.cluster import Limits
from tasks.limits.policy import Policy, levels
from tasks.limits.protocols import Away
from tasks.runtime.identity import Identity
from tasks.scope import Later, Scope
from tests.support.browsers import running
from tests.support.waiting import until
from tests.support.web import Site, reply

HTML = "Content-Type: text/html"
Make = Callable[..., BrowserService]
Slot = Callable[[Scope, str | None], AbstractContextManager[object]]
Slots = Callable[[int], Slot]


@pytest.fixture
def make(dialler: Any) -> Iterator[Make]:
    made: list[BrowserService] = []

    def start(slot: Any = None, **settings: Any) -> BrowserService:
        given = {} if slot is None else {"slot": slot}
        made.append(
            BrowserService(
                settings=config.Browser(**{"warm_tabs": 0, **settings}),
                dialler=dialler,
                holder=Identity("pool@test"),
                **given,
            )
        )
        return made[-1]

    yield start
    for each in made:
        each.close()


def scope() -> Scope:
    return Scope.lasting(60, operation="browser.test")


def test_every_event_is_counted_from_the_first_on(make: Make) -> None:
    make()
    for event in EVENTS:
        assert metrics.REGISTRY.get_sample_value("gaia_browser_events_total", {"event": event}) is not None


def take(service: BrowserService, **fields: Any) -> b.Captured:
    return service.capture(b.Capture(**{"formats": ("text",), **fields}), scope())


def gauge(service: BrowserService, name: str) -> int:
    return service.stats(b.Stats(), scope()).gauges[name]


# --- tabs opened ahead


def test_tabs_are_opened_ahead_and_taken_first(make: Make) -> None:
    service = make(warm_tabs=2)
    take(service, html="first")
    until(lambda: gauge(service, "warm_tabs") == 2, what="two tabs ahead")
    assert service.pool.counters["warm"] == 0
    assert take(service, html="second").text == "second"
    assert service.pool.counters["warm"] == 1
    until(lambda: gauge(service, "warm_tabs") == 2, what="another one ahead")
    assert (gauge(service, "tabs"), gauge(service, "instances")) == (0, 1)


def test_many_captures_at_once_open_no_more_ahead_than_asked_for(make: Make) -> None:
    service = make(warm_tabs=2)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: take(service, html="x"), range(16)))
    until(lambda: gauge(service, "warm_tabs") == 2)
    instance = running(service)
    until(lambda: instance.tabs == 2, what="the end of all other tabs")


def test_tabs_opened_ahead_share_nothing(make: Make, site: Site) -> None:
    site.routes["/"] = reply(
        b"<p id=p><script>p.textContent = document.cookie || 'none'; document.cookie='x=1'</script>", 200, HTML
    )
    service = make(warm_tabs=2)
    take(service, html="start")
    until(lambda: gauge(service, "warm_tabs") == 2)
    assert [take(service, url=site.url()).text for _ in range(3)] == ["none"] * 3
    assert service.pool.counters["warm"] >= 2


def test_tabs_ahead_in_a_browser_that_died_are_given_to_nobody(make: Make) -> None:
    service = make(warm_tabs=2)
    take(service, html="x")
    until(lambda: gauge(service, "warm_tabs") == 2)
    os.killpg(running(service).pid, signal.SIGKILL)
    until(lambda: not service.pool.instances, what="the end of the dead browser")
    assert gauge(service, "warm_tabs") == 0
    assert take(service, html="next").text == "next"


# --- seats


def test_browsers_started_under_a_rush_hold_no_more_tabs_than_allowed(make: Make) -> None:
    service = make(tabs_per_instance=2, max_instances=3)
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda _: service.open(b.Open(), scope()), range(6)))
    assert sorted(each.tabs for each in service.pool.instances) == [2, 2, 2]


def test_a_seat_is_free_again_when_its_tab_could_not_be_opened(make: Make) -> None:
    service = make(tabs_per_instance=1, max_instances=1)
    take(service, html="x")
    instance = running(service)
    call = instance.devtools.call

    def failing(method: str, *given: Any) -> Any:
        if method == "Target.createTarget":
            instance.devtools.call = call
            return call("No.such", {})
        return call(method, *given)

    instance.devtools.call = failing
    assert take(service, html="next").text == "next"
    until(lambda: instance.tabs == 0)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no full Chromium: gaia chromium --install --full")
def test_browsers_of_one_session_leave_one_for_all_others(make: Make) -> None:
    service = make(max_instances=2)
    take(service, html="x")
    session = service.open(b.Open(extensions=True), scope()).id
    with pytest.raises(PoolExhausted):
        service.open(b.Open(extensions=True), scope())
    assert take(service, html="next").text == "next"
    assert gauge(service, "instances") == 2
    service.close_session(b.Close(session), scope())
    session = service.open(b.Open(extensions=True), scope()).id
    service.close_session(b.Close(session), scope())


# --- recycling


def test_a_browser_of_a_certain_age_is_replaced(make: Make) -> None:
    service = make(recycle_s=3600)
    take(service, html="x")
    first = running(service)
    service.pool.clock = lambda: time.monotonic() + 3590
    take(service, html="x")
    assert running(service) is first
    service.pool.clock = lambda: time.monotonic() + 3601
    until(lambda: first.dead, what="the end of the old browser")
    assert take(service, html="next").text == "next"
    assert service.pool.counters["recycled"] == 1


def test_a_browser_that_holds_much_memory_is_replaced_when_its_tabs_have_ended(make: Make) -> None:
    service = make(recycle_bytes=1)
    session = service.open(b.Open(), scope()).id
    first = running(service)
    until(lambda: first.retiring, what="the look at its memory")
    assert first.memory_bytes > 1
    assert service.evaluate(b.Evaluate(session, "1"), scope()).value == 1
    service.close_session(b.Close(session), scope())
    until(lambda: first.dead)
    assert not first.home.exists()


def test_each_use_of_a_kept_tab_counts_towards_recycling(make: Make) -> None:
    service = make(recycle_after=3)
    take(service, html="1", isolation="reuse")
    first = running(service)
    take(service, html="2", isolation="reuse")
    assert running(service) is first
    take(service, html="3", isolation="reuse")
    until(lambda: first.dead, what="the end of the worn browser")


def test_a_capture_that_finds_every_browser_full_says_so(make: Make) -> None:
    service = make(max_instances=1, tabs_per_instance=1)
    session = service.open(b.Open(), scope()).id
    with pytest.raises(PoolExhausted):
        take(service, html="x", timeout_s=0.3)
    service.close_session(b.Close(session), scope())
    assert take(service, html="next").text == "next"


def test_a_browser_with_a_kept_tab_and_one_in_use_is_retired_under_neither(make: Make, site: Site) -> None:
    entered, free = threading.Event(), threading.Event()

    def hang(_: object, __: object) -> bytes:
        entered.set()
        free.wait(30)
        return reply(b"there", 200, HTML)

    site.routes |= {"/": reply(b"kept", 200, HTML), "/hang": hang}
    service = make()
    take(service, url=site.url(), isolation="reuse")
    first = running(service)
    with ThreadPoolExecutor(1) as threads:
        under_way = threads.submit(take, service, url=site.url("/hang"))
        assert entered.wait(20)
        service.pool.clock = lambda: time.monotonic() + 3601
        until(lambda: first.retiring)
        until(lambda: first.tabs == 1, what="the end of the kept tab")
        assert take(service, url=site.url(), isolation="reuse").text == "kept"
        assert not first.dead
        free.set()
        assert under_way.result(20).text == "there"
    until(lambda: first.dead)


def test_a_tab_kept_for_a_tenant_that_does_not_come_back_is_ended(make: Make) -> None:
    service = make()
    take(service, html="x", isolation="reuse", tenant="a")
    assert gauge(service, "idle_tabs") == 1
    service.pool.clock = lambda: time.monotonic() + 121
    until(lambda: gauge(service, "idle_tabs") == 0)
    assert not running(service).dead


# --- slots of the cluster's limits


@pytest.fixture
def slots() -> Iterator[Slots]:
    """Slots for so many tabs; asked for before `make`, they are closed after the services that hold some."""
    made: list[Limits] = []

    def start(concurrency: int) -> Slot:
        limits = Limits.in_memory(Policy(config.Limits(), {"pool:browser": Limit(concurrency=concurrency)}))
        made.append(limits)
        return lambda scope, tenant: limits.holding(
            scope, levels(key=tenant, within="pool:browser"), if_away=Away.FAIL_CLOSED
        )

    yield start
    for each in made:
        each.close()


def test_each_tab_of_a_session_takes_a_slot_and_gives_it_back(slots: Slots, make: Make) -> None:
    service = make(slots(2))
    session = service.open(b.Open(), scope()).id
    tab = service.open_tab(b.OpenTab(session), scope()).tab
    with pytest.raises(Later):
        service.open_tab(b.OpenTab(session), scope())
    with pytest.raises(Later):
        take(service, html="x")
    service.close_tab(b.CloseTab(session, tab), scope())
    service.open_tab(b.OpenTab(session), scope())
    service.close_session(b.Close(session), scope())
    sessions = [service.open(b.Open(), scope()).id for _ in range(2)]
    with pytest.raises(Later):
        service.open(b.Open(), scope())
    for each in sessions:
        service.close_session(b.Close(each), scope())
    assert take(service, html="x").text == "x"


def test_a_tab_opened_while_its_session_is_closed_leaves_nothing(slots: Slots, make: Make) -> None:
    service = make(slots(2))
    session = service.open(b.Open(), scope()).id
    opened = service.sessions._pool.open

    async def closing(*given: Any) -> Any:
        page = await opened(*given)
        await service.sessions.close(session, "it was closed")
        return page

    service.sessions._pool.open = closing  # type: ignore[method-assign]
    with pytest.raises(SessionMissing):
        service.open_tab(b.OpenTab(session), scope())
    service.sessions._pool.open = opened  # type: ignore[method-assign]
    assert gauge(service, "tabs") == 0
    for _ in range(2):
        service.open(b.Open(), scope())


# --- what is counted


def test_stats_count_what_happened_and_what_there_is(make: Make) -> None:
    service = make()
    assert service.stats(b.Stats(), scope()).counters["launches"] == 0
    session = service.open(b.Open(), scope()).id
    with pytest.raises(InvalidCall):
        service.open(b.Open(context=b.Context(timezone="Mars/Base")), scope())
    seen = service.stats(b.Stats(), scope())
    assert (
        seen.counters | {"launches": 1, "sessions_opened": 1, "tabs_opened": 2, "protocol_errors": 1} == seen.counters
    )
    assert seen.gauges | {"instances": 1, "tabs": 1, "sessions": 1} == seen.gauges
    service.close_session(b.Close(session), scope())
    assert service.stats(b.Stats(), scope()).gauges["sessions"] == 0
    until(lambda: service.stats(b.Stats(), scope()).peaks["tabs"] == 2)


# --- the sandbox


def test_a_sandbox_that_is_off_is_said_in_the_log_and_in_health(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    assert make().health(b.Health(), scope()).sandbox
    assert "NO_SANDBOX" not in caplog.text
    with caplog.at_level(logging.WARNING):
        seen = make(no_sandbox=True).health(b.Health(), scope())
    assert (seen.healthy, seen.sandbox) == (True, False)
    assert "GAIA_BROWSER__NO_SANDBOX is on" in caplog.text
