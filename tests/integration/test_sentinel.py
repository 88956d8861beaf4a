"""Our channel behind Redis Sentinel: it fetches, commits, and goes on with the replica that was promoted."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Queue
from kombu.message import Message

from gaia.store import keys
from tasks.broker import holders
from tasks.cli.server import find_binary, free_port
from tests.chaos.server import HOST, Server
from tests.support.cluster import stop
from tests.support.waiting import until
from tests.unit.broker.conftest import text

MASTER = "gaia"


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "master") as found:
        yield found


@pytest.fixture
def replica(tmp_path: Path, master: Server) -> Iterator[Server]:
    with Server(tmp_path / "replica") as found:
        found.client.replicaof(HOST, str(master.port))
        until(lambda: found.client.info("replication").get("master_link_status") == "up", what="the replica")
        yield found


@pytest.fixture
def sentinel(tmp_path: Path, master: Server, replica: Server) -> Iterator[int]:
    """A sentinel that alone decides; give its port."""
    port, file = free_port(HOST), tmp_path / "sentinel.conf"
    file.write_text(
        f"port {port}\nbind {HOST}\ndir {tmp_path}\n"
        f"sentinel monitor {MASTER} {HOST} {master.port} 1\n"
        f"sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 5000\n"
    )
    log = (tmp_path / "sentinel.log").open("wb")
    process = subprocess.Popen([find_binary().path, file, "--sentinel"], stdout=log, stderr=log)
    try:
        with redis.Redis(host=HOST, port=port, socket_timeout=5) as client:

            def knows_the_replica() -> bool:
                with suppress(redis.RedisError):
                    return bool(client.execute_command("SENTINEL", "REPLICAS", MASTER))
                return False

            until(knows_the_replica, 30, what="the sentinel's knowledge")
        yield port
    finally:
        stop(process)
        log.close()


@contextmanager
def consuming(sentinel: int, received: list[Message]) -> Iterator[tuple[Connection, Any]]:
    connection = Connection(
        f"sentinel://{HOST}:{sentinel}/0",
        transport="tasks.broker.transport:SentinelTransport",
        transport_options={"master_name": MASTER, "socket_timeout": 2.0, "socket_connect_timeout": 1.0},
    )
    try:
        channel: Any = connection.channel()
        Consumer(channel, [Queue("q", no_declare=True)], on_message=received.append).consume()
        yield connection, channel
    finally:
        with suppress(redis.RedisError, OSError):
            connection.close()


def leads_to(sentinel: int, server: Server) -> bool:
    """Say whether a sentinel gives a server as the master: it does so up to a second after that has become one."""
    with redis.Redis(host=HOST, port=sentinel, socket_timeout=5, decode_responses=True) as client:
        return bool(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)[1] == str(server.port))


def drain(connection: Connection) -> None:
    with suppress(TimeoutError):
        connection.drain_events(timeout=0.05)


@pytest.mark.timeout(100)
def test_messages_are_fetched_and_committed_before_and_after_a_failover(
    sentinel: int, master: Server, replica: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holders, "_holders", {})
    received: list[Message] = []
    master.client.lpush("q", text("a"), text("b"))
    with consuming(sentinel, received) as (connection, channel):
        until(lambda: drain(connection) or len(received) == 2)
        received[0].ack()
        until(lambda: drain(connection) or master.client.hlen(keys.HELD) == 1, what="the first commit")
        until(lambda: replica.client.hlen(keys.HELD) == 1, what="the replica's knowledge")
        master.kill()
        until(lambda: leads_to(sentinel, replica), 40, what="the promotion")
        received[1].ack()
    with consuming(sentinel, received) as (connection, channel):
        assert type(channel).__name__ == "SentinelChannel"
        until(lambda: drain(connection) or replica.client.hlen(keys.HELD) == 0, 30, what="the second commit")
        replica.client.lpush("q", text("c"))
        until(lambda: drain(connection) or len(received) == 3, 30)
        received[2].ack()
        until(lambda: drain(connection) or replica.client.hlen(keys.HELD) == 0, what="the third commit")
    holders.close()
