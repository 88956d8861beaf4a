"""The Lua scripts, called directly on a real server: what is true in Redis after each single step."""

import contextlib
import json
import threading
import time
from typing import Any

import pytest
import redis

from gaia.store import keys
from tasks.broker.keeper import Commit, turn_arguments
from tasks.broker.scripts import SCRIPTS
from tests.support.waiting import until

LISTS = [f"q{step}" for step in ("", "\x06\x163", "\x06\x166", "\x06\x169")]
HELD = ["unacked", "unacked_index", keys.HELD]
SHARED = [keys.PAUSED, keys.DELAYED, keys.DELAYED_MESSAGES]


@pytest.fixture
def client(redis_url: str) -> "redis.Redis":
    found = redis.Redis.from_url(redis_url, socket_timeout=10)
    found.flushdb()
    return found


def text(tag: str, **properties: object) -> bytes:
    return json.dumps(
        {
            "body": "W10=",
            "headers": {"task": "q.x", "id": tag},
            "properties": {
                "correlation_id": tag,
                "delivery_info": {"exchange": "", "routing_key": "q"},
                "priority": 0,
                "delivery_tag": tag,
                **properties,
            },
        }
    ).encode()


class Worker:
    """What a worker does to Redis, without the worker."""

    def __init__(self, client: "redis.Redis", name: str, *queues: str) -> None:
        self.client = client
        self.queues = queues or ("q",)
        self.name = name
        self.turns = 0
        self.fences: dict[str, str] = {}

    def lists(self) -> list[str]:
        return [each.replace("q", queue, 1) for each in LISTS for queue in self.queues]

    def turn(self, want: int, *commits: tuple[Any, ...]) -> tuple[int, list[str]]:
        """Give how many commits were refused, and the tags of what was fetched."""
        self.turns += 1
        fence = f"{self.name}:{self.turns}"
        reply = self.client.register_script(SCRIPTS["turn"])(
            keys=[*HELD, *SHARED, *self.lists()],
            args=[
                want,
                len(self.queues),
                fence,
                "",
                len(commits),
                *(part for each in commits for part in each),
                *self.queues,
            ],
        )
        refused, _, _, _, *found = reply
        tags = [each.decode() for each in found[2::5]]
        self.fences |= dict.fromkeys(tags, fence)
        self.items = dict(zip(tags, found[1::5], strict=True))
        self.lost = dict(zip(tags, found[3::5], strict=True))
        self.cancelled = dict(zip(tags, found[4::5], strict=True))
        return refused, tags

    def end(self, tag: str, result: str = "") -> tuple[Any, ...]:
        return (tag, self.fences[tag], keys.result(tag) if result else "", result, 60, "", "", "")

    def act(self, tag: str, action: str, first: object = "", second: object = "") -> tuple[Any, ...]:
        return (tag, self.fences[tag], "", "", 0, action, first, second)

    def give_back(self, where: str, *tags: str) -> int:
        parts = [part for tag in tags for part in (tag, self.fences[tag])]
        return int(self.client.register_script(SCRIPTS["give_back"])(keys=HELD, args=[where, *parts]))

    def renew(self, *tags: str) -> list[bytes]:
        parts = [part for tag in tags for part in (tag, self.fences[tag])]
        return list(self.client.register_script(SCRIPTS["renew"])(keys=HELD[1:], args=parts))[::2]

    def sweep(self, lease_s: float) -> int:
        return int(
            self.client.register_script(SCRIPTS["restore"])(keys=[*HELD, keys.SWEEP], args=[lease_s, 1000, 60, 2])
        )


@pytest.fixture
def one(client: "redis.Redis") -> Worker:
    return Worker(client, "one")


@pytest.fixture
def other(client: "redis.Redis") -> Worker:
    return Worker(client, "other")


def queued(client: "redis.Redis", *names: str) -> list[str]:
    """Give the tags on lists, the next to be fetched first."""
    found = []
    for name in names or LISTS:
        found += [json.loads(each)["properties"]["delivery_tag"] for each in reversed(client.lrange(name, 0, -1))]
    return found


def held(client: "redis.Redis") -> dict[str, int]:
    return {
        "unacked": client.hlen("unacked"),
        "unacked_index": client.zcard("unacked_index"),
        "held": client.hlen(keys.HELD),
    }


def put(client: "redis.Redis", *tags: str, name: str = "q", **properties: object) -> None:
    for tag in tags:
        client.lpush(name, text(tag, **properties))


def lapse(client: "redis.Redis", worker: Worker, lease_s: float = 0.05) -> int:
    """Sweep until the first that restores something."""
    return until(lambda: worker.sweep(lease_s), what="a restore")


NOTHING = {"unacked": 0, "unacked_index": 0, "held": 0}
ALL = {"unacked": 1, "unacked_index": 1, "held": 1}


def test_a_fetched_message_is_recorded_in_the_same_step(client: "redis.Redis", one: Worker) -> None:
    put(client, "a")
    assert one.turn(5) == (0, ["a"])
    assert queued(client) == []
    assert held(client) == ALL


def test_at_every_instant_each_message_is_on_a_list_or_held(client: "redis.Redis", redis_url: str) -> None:
    """Seen by a transaction of a second client, while two workers fetch, commit, give back and sweep."""
    tags = [f"t{number}" for number in range(300)]
    put(client, *tags)
    ended: set[str] = set()
    lock = threading.Lock()
    done = threading.Event()

    def work(name: str) -> None:
        with redis.Redis.from_url(redis_url) as own:
            worker = Worker(own, name)
            commits: list[Any] = []
            number = 0
            while not done.is_set():
                _, found = worker.turn(3, *commits)
                commits = []
                for tag in found:
                    number += 1
                    if number % 3 == 0:
                        worker.give_back("last", tag)
                    else:
                        # Before the commit is sent: from then on the message may be gone.
                        with lock:
                            ended.add(tag)
                        commits.append(worker.end(tag))
                worker.sweep(60)
                if not found and not commits:
                    return

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    try:
        while any(each.is_alive() for each in threads):
            with lock:
                before = set(ended)
            pipe = client.pipeline(transaction=True)
            for each in LISTS:
                pipe.lrange(each, 0, -1)
            pipe.hkeys("unacked")
            *lists, records = pipe.execute()
            seen = {json.loads(item)["properties"]["delivery_tag"] for found in lists for item in found}
            seen |= {each.decode() for each in records}
            with lock:
                missing = set(tags) - seen - ended - before
            assert not missing
    finally:
        done.set()
        for thread in threads:
            thread.join(10)
    assert held(client) == NOTHING


def test_result_and_end_come_together(client: "redis.Redis", one: Worker) -> None:
    put(client, "a")
    one.turn(1)
    assert client.get(keys.result("a")) is None
    assert one.turn(0, one.end("a", "done")) == (0, [])
    assert client.get(keys.result("a")) == b"done"
    assert 0 < client.ttl(keys.result("a")) <= 60
    assert held(client) == NOTHING


def test_a_result_is_announced_on_its_channel(client: "redis.Redis", one: Worker) -> None:
    put(client, "a")
    one.turn(1)
    with client.pubsub(ignore_subscribe_messages=True) as heard:  # type: ignore[no-untyped-call]  # redis-py
        heard.subscribe(keys.result("a"))
        heard.get_message(timeout=5)
        one.turn(0, one.end("a", "done"))
        assert until(lambda: heard.get_message(timeout=0.1))["data"] == b"done"


def test_a_repeated_commit_changes_nothing(client: "redis.Redis", one: Worker) -> None:
    put(client, "a", "b")
    one.turn(2)
    commit = one.end("a", "first")
    one.turn(0, commit)
    client.delete(keys.result("a"))
    assert one.turn(0, commit) == (1, [])
    assert client.get(keys.result("a")) is None
    assert held(client) == ALL


def test_an_old_holder_can_neither_commit_nor_store_a_result(client: "redis.Redis", one: Worker, other: Worker) -> None:
    put(client, "a")
    one.turn(1)
    assert lapse(client, other) == 1
    assert other.turn(1) == (0, ["a"])
    assert one.turn(0, one.end("a", "old")) == (1, [])
    assert client.get(keys.result("a")) is None
    assert held(client) == ALL
    other.turn(0, other.end("a", "new"))
    assert client.get(keys.result("a")) == b"new"


def test_an_old_holder_can_neither_renew_nor_give_back(client: "redis.Redis", one: Worker, other: Worker) -> None:
    put(client, "a")
    one.turn(1)
    lapse(client, other)
    other.turn(1)
    score = client.zscore("unacked_index", "a")
    assert one.renew("a") == [b"a"]
    assert client.zscore("unacked_index", "a") == score
    assert one.give_back("next", "a") == 0
    assert queued(client) == []
    assert held(client) == ALL


def test_two_fetches_by_one_process_have_two_fences(client: "redis.Redis", one: Worker, other: Worker) -> None:
    put(client, "a")
    one.turn(1)
    first = one.end("a", "old")
    lapse(client, other)
    one.turn(1)
    assert one.turn(0, first) == (1, [])
    assert held(client) == ALL


def test_a_renewed_lease_does_not_lapse(client: "redis.Redis", one: Worker, other: Worker) -> None:
    put(client, "a", "b")
    one.turn(2)
    before = client.zscore("unacked_index", "a") or 0.0
    until(lambda: one.renew("a") == [] and (client.zscore("unacked_index", "a") or 0.0) > before + 0.3)
    # At this moment one lease is new and the other is 0.3 s old.
    until(lambda: one.renew("a") == [] and other.sweep(0.2))
    assert queued(client) == ["b"]
    assert client.hkeys("unacked") == [b"a"]


def test_a_restored_message_is_fetched_next_from_its_own_list(
    client: "redis.Redis", one: Worker, other: Worker
) -> None:
    put(client, "low", name=LISTS[2])
    one.turn(1)
    put(client, "later", name=LISTS[2])
    lapse(client, other)
    assert queued(client, LISTS[2]) == ["low", "later"]


def test_a_restored_message_is_byte_for_byte_what_was_queued(client: "redis.Redis", one: Worker, other: Worker) -> None:
    odd = text("a", reply_to='"delivery_tag": "no", "correlation_id": "no"').replace(b'"body"', b'\t"b\xc3\xb6dy"')
    client.lpush("q", odd)
    one.turn(1)
    lapse(client, other)
    assert client.lrange("q", 0, -1) == [odd]


def test_suspects_are_restored_behind_all_others(client: "redis.Redis", one: Worker, other: Worker) -> None:
    put(client, "suspect", "innocent")
    client.set(keys.LOST + "suspect", 1)
    one.turn(2)
    put(client, "waits")
    until(lambda: other.sweep(0.05) == 2)
    assert queued(client) == ["innocent", "waits", "suspect"]


def test_lost_leases_are_counted_by_the_calls_own_id(client: "redis.Redis", one: Worker, other: Worker) -> None:
    put(client, "a")
    for expected in (0, 1, 2):
        one.turn(1)
        assert one.lost == {"a": expected}
        lapse(client, other)
    assert client.get(keys.LOST + "a") == b"3"
    assert 0 < client.ttl(keys.LOST + "a") <= 60


def test_what_is_given_back_counts_no_lost_lease(client: "redis.Redis", one: Worker) -> None:
    put(client, "a")
    one.turn(1)
    assert one.give_back("next", "a") == 1
    one.turn(1)
    assert one.lost == {"a": 0}


def test_given_back_next_or_last(client: "redis.Redis", one: Worker) -> None:
    put(client, "a", "b", "c")
    one.turn(2)
    assert one.give_back("last", "a") == 1
    assert one.give_back("next", "b") == 1
    assert queued(client) == ["b", "c", "a"]
    assert held(client) == NOTHING


def test_the_first_sweep_after_an_outage_waits_one_lease(client: "redis.Redis", one: Worker, other: Worker) -> None:
    put(client, "a")
    one.turn(1)
    client.zadd("unacked_index", {"a": 1.0})  # the lease lapsed long ago: the server was away
    assert other.sweep(0.5) == 0
    assert queued(client) == []
    assert until(lambda: other.sweep(0.5)) == 1


def test_a_worker_that_lives_renews_within_that_grace(client: "redis.Redis", one: Worker, other: Worker) -> None:
    put(client, "a")
    one.turn(1)
    client.zadd("unacked_index", {"a": 1.0})
    assert other.sweep(0.3) == 0
    ends_at = time.monotonic() + 0.6
    until(lambda: one.renew("a") == [] and other.sweep(0.3) == 0 and time.monotonic() > ends_at)
    assert held(client) == ALL


def test_a_stock_workers_message_is_left_to_its_visibility_timeout(client: "redis.Redis", other: Worker) -> None:
    client.zadd("unacked_index", {"stock": 1.0})
    client.hset("unacked", "stock", '[{"body": ""}, "", "q"]')
    ends_at = time.monotonic() + 0.5
    until(lambda: other.sweep(0.1) == 0 and time.monotonic() > ends_at)
    assert client.hkeys("unacked") == [b"stock"]


def test_what_a_stock_worker_restored_and_took_is_not_cut_at_our_old_length(
    client: "redis.Redis", one: Worker, other: Worker
) -> None:
    put(client, "a")
    one.turn(1)
    # kombu's restore_by_tag: it marks the message, and leaves our record of it behind.
    message = json.loads(text("a"))
    message["headers"]["redelivered"] = True
    client.hset("unacked", "a", json.dumps([message, "", "q"]))
    client.zadd("unacked_index", {"a": 1.0})
    ends_at = time.monotonic() + 0.5
    until(lambda: other.sweep(0.1) is not None and time.monotonic() > ends_at)
    pushed = client.lrange("q", 0, -1)
    assert all(json.loads(each)["headers"]["redelivered"] for each in pushed)
    assert len(pushed) + client.hlen("unacked") == 1


def test_what_a_stock_worker_restored_and_ended_leaves_no_record_behind(
    client: "redis.Redis", one: Worker, other: Worker
) -> None:
    put(client, *(f"t{number}" for number in range(100)))
    one.turn(100)
    for number in range(99):  # kombu's ack knows two of our three keys
        client.zrem("unacked_index", f"t{number}")
        client.hdel("unacked", f"t{number}")
    until(lambda: other.sweep(0.2) is not None and not client.hlen(keys.HELD))
    assert queued(client) == ["t99"]
    assert held(client) == NOTHING


def test_a_paused_queue_is_skipped(client: "redis.Redis") -> None:
    put(client, "a", name="q")
    put(client, "b", name="r")
    worker = Worker(client, "w", "q", "r")
    client.sadd(keys.PAUSED, "q")
    assert worker.turn(5) == (0, ["b"])
    client.srem(keys.PAUSED, "q")
    assert worker.turn(5) == (0, ["a"])


def test_priorities_hold_across_queues(client: "redis.Redis") -> None:
    worker = Worker(client, "w", "q", "r")
    for number, step in enumerate(("", "\x06\x163", "\x06\x166", "\x06\x169")):
        put(client, f"q{number}", name=f"q{step}")
        put(client, f"r{number}", name=f"r{step}")
    _, found = worker.turn(8)
    assert [each[1] for each in found] == ["0", "0", "1", "1", "2", "2", "3", "3"]


@pytest.mark.parametrize("want", [2, 4, 7])
def test_a_full_queue_does_not_starve_another(client: "redis.Redis", want: int) -> None:
    worker = Worker(client, "w", "q", "r")
    put(client, *(f"q{number}" for number in range(50)), name="q")
    put(client, *(f"r{number}" for number in range(50)), name="r")
    _, found = worker.turn(want)
    assert len(found) == want
    assert sum(each.startswith("r") for each in found) >= want // 2


def test_no_more_is_fetched_than_wanted(client: "redis.Redis", one: Worker) -> None:
    put(client, *"abcdef")
    assert one.turn(0) == (0, [])
    assert one.turn(4) == (0, ["a", "b", "c", "d"])
    assert queued(client) == ["e", "f"]


def test_a_cancel_mark_comes_with_the_message(client: "redis.Redis", one: Worker) -> None:
    put(client, "a", "b")
    client.set(keys.cancel("a"), 1)
    one.turn(2)
    assert one.cancelled == {"a": 1, "b": 0}


def test_a_delayed_end_comes_back_at_its_time_and_not_before(client: "redis.Redis", one: Worker) -> None:
    put(client, "a", name=LISTS[1])
    one.turn(1)
    due = time.time() + 0.4
    one.turn(0, one.act("a", "delay", due))
    assert held(client) == NOTHING
    found = until(lambda: one.turn(1)[1])
    assert found == ["a"]
    assert time.time() >= due
    assert client.zcard(keys.DELAYED) == client.hlen(keys.DELAYED_MESSAGES) == 0


def test_what_was_cancelled_since_it_was_fetched_is_not_delayed(client: "redis.Redis", one: Worker) -> None:
    put(client, "a")
    one.turn(1)
    client.set(keys.cancel("a"), 1)
    one.turn(0, one.act("a", "delay", time.time() + 60))
    assert one.turn(1) == (0, ["a"])
    assert one.cancelled == {"a": 1}
    assert not client.exists(keys.DELAYED, keys.DELAYED_MESSAGES)


@pytest.mark.parametrize("action", ["delay", "aside", "bury"])
def test_an_old_holder_can_do_nothing_to_a_message(
    client: "redis.Redis", one: Worker, other: Worker, action: str
) -> None:
    put(client, "a")
    one.turn(1)
    lapse(client, other)
    other.turn(1)
    assert one.turn(0, one.act("a", action, "1", "x")) == (1, [])
    assert held(client) == ALL
    assert not client.exists(keys.DELAYED, keys.aside("1"), keys.DEAD)


@pytest.mark.parametrize(
    "message",
    [b"no message at all", b'{"delivery_tag": "\xff\xfe"}', b'{"delivery_tag": "a\tb"}', b'{"delivery_tag": ""}'],
)
def test_a_message_without_a_usable_tag_is_held_under_one_of_its_own(
    client: "redis.Redis", one: Worker, message: bytes
) -> None:
    client.lpush("q", message)
    put(client, "a")
    _, (made, tag) = one.turn(5)
    assert tag == "a"
    assert made.isascii()
    assert one.items[made] == message
    assert client.hlen("unacked") == 2
    one.turn(0, one.act(made, "bury", "why"))
    assert client.zcard(keys.DEAD) == 1


def test_the_same_message_twice_is_held_once(client: "redis.Redis", one: Worker, other: Worker) -> None:
    """A producer that repeats a push whose reply was lost."""
    put(client, "a", "a", "a")
    assert one.turn(2) == (0, ["a"])
    assert other.turn(2) == (0, [])
    assert held(client) == ALL
    assert one.turn(0, one.end("a")) == (0, [])
    assert held(client) == NOTHING


def test_another_message_of_the_same_tag_is_held_beside_it(client: "redis.Redis", one: Worker, other: Worker) -> None:
    put(client, "a")
    put(client, "a", priority=7)
    put(client, "a", priority=8)
    _, found = one.turn(2)
    assert len(set(found)) == 2
    _, more = other.turn(2)
    assert len(set(found + more)) == 3
    assert held(client) == {"unacked": 3, "unacked_index": 3, "held": 3}


def test_plain_ends_travel_as_one_text(client: "redis.Redis", one: Worker, other: Worker) -> None:
    put(client, "a", "b b", "c")
    one.turn(3)
    commits = [Commit(tag, one.fences[tag]) for tag in ("a", "b b")]
    stale = Commit("c", "other:1")
    arguments = turn_arguments(0, ["q"], "f", [*commits, stale])
    assert len(arguments) == 6
    reply = client.register_script(SCRIPTS["turn"])(keys=[*HELD, *SHARED, *one.lists()], args=arguments)
    assert reply[0] == 1
    assert client.hkeys("unacked") == [b"c"]


def test_a_commit_that_cannot_be_carried_out_puts_the_message_back(client: "redis.Redis", one: Worker) -> None:
    put(client, "a")
    one.turn(1)
    client.set(keys.DEAD, "no set")
    one.turn(0, one.act("a", "bury", "why"))
    assert queued(client) == ["a"]
    assert held(client) == NOTHING


def test_what_cannot_be_recorded_goes_back_in_its_order(client: "redis.Redis", redis_url: str) -> None:
    """A user who may pop from lists and not write the index."""
    put(client, "a", "b", "c")
    rights = "+@all -zadd"
    client.execute_command("ACL", "SETUSER", "unable", "reset", "on", ">secret", "~*", "&*", *rights.split())
    host = redis_url.rpartition("@")[2]
    try:
        with (
            redis.Redis.from_url(f"redis://unable:secret@{host}") as limited,
            pytest.raises(redis.ResponseError, match="went back"),
        ):
            Worker(limited, "w").turn(2)
    finally:
        client.execute_command("ACL", "DELUSER", "unable")
    assert queued(client) == ["a", "b", "c"]


@pytest.mark.parametrize("missing", ["correlation_id", "delivery_tag", "delivery_info", None])
def test_a_large_message_does_not_keep_the_server_busy(client: "redis.Redis", one: Worker, missing: str | None) -> None:
    message = json.loads(text("a"))
    message["body"] = '"' * 600_000
    message["properties"].pop(missing, None)
    client.lpush("q", json.dumps(message))
    client.config_resetstat()
    one.turn(1)
    assert client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"] < 500_000


def test_a_full_server_still_commits_and_hands_out(client: "redis.Redis", one: Worker) -> None:
    put(client, "a", "b")
    one.turn(1)
    client.config_set("maxmemory", 1)
    try:
        assert one.turn(1, one.end("a", "done")) == (0, ["b"])
        assert client.get(keys.result("a")) == b"done"
    finally:
        client.config_set("maxmemory", 0)


def test_a_key_of_another_type_loses_no_message(client: "redis.Redis") -> None:
    """A script that fails halfway is not undone: what it took off a list before must be recorded."""
    worker = Worker(client, "w", "q", "r")
    put(client, "a", name="q")
    client.set("r", "no list")
    with contextlib.suppress(redis.ResponseError):
        worker.turn(4)
    assert client.llen("q") + client.hlen("unacked") == 1


def test_many_lapsed_leases_are_restored_in_parts(client: "redis.Redis", one: Worker, other: Worker) -> None:
    tags = [f"t{number}" for number in range(2500)]
    client.lpush("q", *(text(each) for each in tags))
    for _ in range(10):
        one.turn(250)
    counts: list[int] = []

    def all_restored() -> bool:
        counts.append(other.sweep(0.2))
        return sum(counts) == len(tags)

    until(all_restored)
    assert max(counts) <= 1000
    assert sorted(queued(client, "q")) == sorted(tags)


def test_sweeps_that_come_late_restore_all_the_same(client: "redis.Redis", one: Worker, other: Worker) -> None:
    put(client, "a")
    one.turn(1)
    ends_at = time.monotonic() + 8

    def restored() -> int:
        threading.Event().wait(0.35)  # more than half a lease lies between two sweeps
        return other.sweep(0.5)

    while not restored():
        assert time.monotonic() < ends_at, "nothing was ever restored"
