"""What a process believes to hold, without a server."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from math import inf
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from tasks.broker.holder import Holder
from tasks.broker.keeper import Commit
from tasks.broker.reading import OVERDUE_S, renewed_until
from tasks.broker.upkeep import LEAVING_S
from tests.support.waiting import until

FAR = time.monotonic() + 3600


@pytest.fixture
def holder() -> Iterator[Holder]:
    found = Holder()
    yield found
    found.close()


class Recording:
    """A keeper that notes what it is asked; `renewing` is called with the tags first."""

    def __init__(self, lost: tuple[str, ...] = (), renewing: Callable[[set[str]], None] = lambda _: None) -> None:
        self.lost = lost
        self.renewing = renewing
        self.renewed: list[set[str]] = []
        self.committed: list[str] = []
        self.given_back: list[tuple[str, str, str]] = []
        self.sweeps = 0
        self.refuses = False
        self.refusals = 0

    def renew(self, leases: list[tuple[str, str]]) -> list[tuple[str, str]]:
        tags = {tag for tag, _ in leases}
        self.renewed.append(tags)
        self.renewing(tags)
        return [each for each in leases if each[0] in self.lost]

    def commit(self, commits: list[Commit], _fence: str) -> int:
        self.committed += [each.tag for each in commits]
        return 0

    def give_back(self, leases: list[tuple[str, str]], where: str) -> int:
        if self.refuses:
            self.refusals += 1
            raise RedisConnectionError
        self.given_back += [(tag, fence, where) for tag, fence in leases]
        return len(leases)

    def sweep(self, _suspect_from: int) -> int:
        self.sweeps += 1
        return 0

    def close(self) -> None:
        pass


def kept(holder: Holder, *, lost: tuple[str, ...] = (), renewing: Callable[[set[str]], None] = lambda _: None) -> Any:
    """Keep a holder up every 5 ms; give the keeper, which notes."""
    found = Recording(lost, renewing)
    holder.keep(cast("Any", found), pause_s=0.005)
    return found


def test_every_turn_has_a_fence_of_its_own(holder: Holder) -> None:
    assert holder.fence() != holder.fence() != Holder().fence()


def test_an_ended_message_is_committed_once_under_its_fence(holder: Holder) -> None:
    holder.fetched("a", "f", FAR, {})
    holder.end("a")
    holder.end("a")
    (commit,) = holder.take_commits()
    assert (commit.tag, commit.fence) == ("a", "f")
    assert not holder.has_commits
    assert not holder.holds("a")


def test_a_result_travels_with_its_messages_end(holder: Holder) -> None:
    holder.fetched("a", "f", FAR, {})
    assert holder.result("a", "key", "value", 60)
    holder.end("a")
    (commit,) = holder.take_commits()
    assert (commit.key, commit.value, commit.ttl_s) == ("key", "value", 60)


def test_a_message_that_is_not_held_takes_no_result_and_no_action(holder: Holder) -> None:
    assert not holder.result("a", "key", "value", 60)
    assert not holder.postpone("a", 1.0)
    assert not holder.bury("a", "why", "")
    holder.end("a")
    assert not holder.has_commits


def test_what_was_given_back_cannot_be_committed_any_more(holder: Holder) -> None:
    found = kept(holder)
    holder.fetched("a", "f", FAR, {})
    holder.result("a", "key", "value", 60)
    holder.give_back(["a", "unknown"], "last")
    until(lambda: found.given_back == [("a", "f", "last")])
    holder.end("a")
    assert not holder.has_commits
    holder.fetched("a", "g", FAR, {})
    holder.end("a")
    assert holder.take_commits()[0].key == ""


def test_commits_that_did_not_arrive_go_first_next_time(holder: Holder) -> None:
    for tag in "abc":
        holder.fetched(tag, "f", FAR, {})
        holder.end(tag)
    sent = holder.take_commits(2)
    holder.put_back(sent)
    assert [each.tag for each in holder.take_commits()] == ["a", "b", "c"]


def test_running_and_ended_messages_are_renewed_until_they_are_committed(holder: Holder) -> None:
    holder.fetched("runs", "f", FAR, {})
    holder.fetched("ended", "f", FAR, {})
    holder.end("ended")
    seen = kept(holder).renewed
    until(lambda: {"runs", "ended"} in seen)
    sent = holder.take_commits()
    count = len(seen)
    until(lambda: len(seen) > count + 1)
    assert seen[-1] == {"runs", "ended"}
    holder.arrived(sent)
    until(lambda: seen[-1] == {"runs"})


def test_an_overdue_message_is_not_renewed(holder: Holder) -> None:
    holder.fetched("overdue", "f", time.monotonic() - 0.001, {})
    holder.fetched("in time", "f", FAR, {})
    seen = kept(holder).renewed
    until(lambda: len(seen) >= 2)
    assert all(each == {"in time"} for each in seen)


@pytest.mark.parametrize("failure", [RedisConnectionError(), AttributeError("a connection that is being closed")])
def test_any_failure_leaves_the_thread_alive(holder: Holder, failure: Exception) -> None:
    """A thread that died silently would cost every lease of the process."""
    holder.fetched("a", "f", FAR, {})
    tries = []

    def renewing(_: set[str]) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise failure

    found = kept(holder, renewing=renewing)
    until(lambda: len(tries) > 3)
    assert found.sweeps > 1


def test_a_lost_lease_is_reported_once_and_not_renewed(holder: Holder, caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    holder.on_lost = told.append
    holder.fetched("a", "f", FAR, {"headers": {"id": "call-1"}})
    seen = kept(holder, lost=("a",)).renewed
    until(lambda: told)
    holder.fetched("b", "f", FAR, {})
    until(lambda: sum(each == {"b"} for each in seen) > 3)
    assert told == ["call-1"]
    assert caplog.text.count("the lease of message a was lost") == 1
    assert holder.was_told("a")


def test_a_message_fetched_again_while_its_run_goes_on_is_not_run_twice(holder: Holder) -> None:
    assert holder.fetched("a", "old", FAR, {})
    assert not holder.fetched("a", "new", FAR, {})
    holder.end("a")
    assert [each.fence for each in holder.take_commits()] == ["new"]


def test_a_run_told_to_stop_gives_the_message_back_under_the_lease_it_came_with_again(holder: Holder) -> None:
    holder.fetched("a", "old", FAR, {})
    found = kept(holder, lost=("a",))
    until(lambda: holder.was_told("a"))
    found.lost = ()
    assert not holder.fetched("a", "new", FAR, {})
    assert holder.was_told("a")
    holder.give_back(["a"], "last")
    until(lambda: found.given_back == [("a", "new", "last")])


def test_the_lost_lease_of_an_earlier_fetch_stops_no_later_run(holder: Holder) -> None:
    """A commit under way has the old fence when the message comes here again."""
    holder.fetched("a", "old", FAR, {})
    holder.end("a")
    holder.take_commits()
    holder.fetched("a", "new", FAR, {})
    assert sorted(holder.due()) == [("a", "new"), ("a", "old")]
    holder.lose("a", "old")
    assert not holder.was_told("a")


def test_suspects_run_one_at_a_time(holder: Holder) -> None:
    for tag, lost in (("a", 2), ("b", 2), ("c", 1)):
        holder.fetched(tag, "f", FAR, {})
        assert holder.admit(tag, lost) is (tag != "b")
    holder.end("a")
    assert holder.admit("b", 2)


def test_while_the_worker_ends_commits_are_sent_without_a_loop(holder: Holder) -> None:
    found = kept(holder)
    for tag in "ab":
        holder.fetched(tag, "f", FAR, {})
    holder.end("a")
    holder.leave()
    until(lambda: found.committed == ["a"])
    holder.end("b")
    until(lambda: found.committed == ["a", "b"])


def test_at_its_end_a_process_commits_what_ended_and_gives_back_the_rest(holder: Holder) -> None:
    found = kept(holder)
    for tag in "abc":
        holder.fetched(tag, "f", FAR, {})
    holder.end("b")
    holder.close()
    assert found.committed == ["b"]
    assert found.given_back == [("a", "f", "next"), ("c", "f", "next")]
    assert not [each for each in threading.enumerate() if each.name == "gaia-lease"]


def test_the_end_of_a_call_wakes_a_loop_that_sleeps_and_no_other(holder: Holder) -> None:
    woken: list[int] = []
    holder.wake = lambda: woken.append(1)
    for tag in "abc":
        holder.fetched(tag, "f", FAR, {})
    holder.end("a")
    assert not holder.sleeps()
    holder.take_commits()
    assert holder.sleeps()
    assert not woken
    holder.end("b")
    holder.end("c")
    assert woken == [1]


def test_many_threads_end_every_message_once(holder: Holder) -> None:
    tags = [str(number) for number in range(2000)]
    for tag in tags:
        holder.fetched(tag, "f", FAR, {})
    taken: list[str] = []
    threads = [threading.Thread(target=lambda: [holder.end(tag) for tag in tags]) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(each.is_alive() for each in threads) or holder.has_commits:
        taken += [each.tag for each in holder.take_commits(7)]
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(tags)


def test_room_is_one_for_each_slot_and_as_many_again_while_calls_are_short(holder: Holder) -> None:
    holder.slots = 4
    for number in range(100):
        holder.fetched(str(number), "f", FAR, {})
        holder.end(str(number))
    assert holder.room() == 8
    holder.fetched("a", "f", FAR, {})
    assert holder.room() == 7


@pytest.mark.parametrize("deadline_in_s", [-5.0, 0.0, 100.0])
def test_a_lease_is_renewed_for_a_minute_past_the_deadline_and_no_longer(deadline_in_s: float) -> None:
    message = {"headers": {"gaia": {"v": 1, "deadline": time.time() + deadline_in_s}}}
    expected = time.monotonic() + max(0.0, deadline_in_s) + OVERDUE_S
    assert renewed_until(message) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("deadline", [float("nan"), float("inf"), 10**400, "soon", True, None, [], -1e308])
def test_a_deadline_that_is_none_has_the_usual_bound(deadline: object) -> None:
    renewed = renewed_until({"headers": {"gaia": {"v": 1, "deadline": deadline}}})
    assert time.monotonic() < renewed < time.monotonic() + 7200


def test_what_waits_for_a_slot_is_renewed_beyond_its_deadline_and_what_runs_is_not(holder: Holder) -> None:
    for tag in ("waits", "runs"):
        holder.fetched(tag, "f", time.monotonic() - 1, {})
        holder.wait(tag, 1.0)
    holder.start("runs", 1.0)
    assert holder.due() == [("waits", "f")]
    holder.start("waits", 1.0)
    assert holder.due() == []


def test_what_waits_for_a_slot_for_long_is_given_back_in_order_and_does_not_start(holder: Holder) -> None:
    found, now = kept(holder), time.monotonic()
    for tag, since in (("long", now - 5), ("runs", now - 5), ("longer", now - 9), ("short", now), ("Celery's", inf)):
        holder.fetched(tag, "f", FAR, {})
        holder.wait(tag, since)
    assert holder.start("runs", now - 5)
    assert holder.give_back_waiting(now - 1) == ["long", "longer"]
    until(lambda: found.given_back == [("long", "f", "next"), ("longer", "f", "next")])
    assert not holder.start("long", now - 5)
    assert holder.held() == ["runs", "short", "Celery's"]
    assert holder.give_back_waiting(now - 1) == []
    assert holder.start("short", now)


def test_what_cannot_be_given_back_yet_is_renewed_until_it_can(holder: Holder) -> None:
    found = kept(holder)
    found.refuses = True
    for tag in "abc":
        holder.fetched(tag, "f", FAR, {})
    holder.give_back(["a"], "next")
    holder.give_back(["b"], "last")
    assert holder.held() == ["c"]
    until(lambda: found.refusals > 1 and found.renewed and found.renewed[-1] == {"a", "b", "c"})
    found.refuses = False
    until(lambda: found.given_back == [("a", "f", "next"), ("b", "f", "last")])
    until(lambda: holder.due() == [("c", "f")])


def test_while_the_worker_ends_what_is_refused_is_tried_no_more_often(holder: Holder) -> None:
    found = Recording((), lambda _: None)
    found.refuses = True
    holder.keep(cast("Any", found), pause_s=8 * LEAVING_S)
    holder.fetched("a", "f", FAR, {})
    holder.give_back(["a"], "next")
    holder.leave()
    until(lambda: found.sweeps > 2)
    assert found.refusals <= found.sweeps + 3


def test_a_renewal_that_failed_is_tried_again_with_the_next_sweep(holder: Holder) -> None:
    """Not with the one after that: a third of a lease has passed already."""
    sweeps: list[int] = []

    def fail(_: set[str]) -> None:
        sweeps.append(found.sweeps)
        raise RedisConnectionError

    holder.fetched("a", "f", FAR, {})
    found = kept(holder, renewing=fail)
    until(lambda: len(sweeps) > 4)
    assert [late - early for early, late in itertools.pairwise(sweeps)] == [1] * (len(sweeps) - 1)


def test_what_was_lost_on_its_way_back_is_renewed_no_more(holder: Holder) -> None:
    found = kept(holder, lost=("a",))
    found.refuses = True
    holder.fetched("a", "f", FAR, {})
    holder.give_back(["a"], "next")
    until(lambda: holder.due() == [])
    assert not holder.returning()


def test_a_message_that_was_given_back_and_came_here_again_starts_once_in_its_new_place(holder: Holder) -> None:
    for since in (1.0, 2.0):
        holder.fetched("a", "f", FAR, {})
        assert not holder.start("a", since)
        holder.wait("a", since)
        if since == 1.0:
            holder.give_back_waiting(since)
    assert not holder.start("a", 1.0)
    assert holder.start("a", 2.0)
    assert not holder.start("a", 2.0)


def test_after_a_long_wait_for_a_slot_none_are_fetched_ahead_until_calls_are_short_again(holder: Holder) -> None:
    holder.slots = 4
    for number in range(200):
        holder.fetched(str(number), "f", FAR, {})
        if number == 100:
            assert holder.room() == 7
            holder.wait("100", time.monotonic() - 2)
            holder.give_back_waiting(time.monotonic() - 1)
            assert holder.room() == 4
        holder.end(str(number))
    assert holder.room() == 8
