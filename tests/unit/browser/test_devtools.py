"""The protocol's framing and its ends, against a socket that plays the browser."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from gaia.errors import BrowserUnavailable
from tasks.browser.devtools import DevTools, NoReply, ProtocolError, SessionClosed, settled
from tests.support.waiting import until

WAIT_S = 10.0


class Peer:
    """The browser's end."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        ours, self.socket = socket.socketpair()
        self.socket.settimeout(WAIT_S)
        self._read = b""
        self.devtools = DevTools(ours, lambda method, given: self.events.append((method, given)))

    def asked(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            self._read += self.socket.recv(65536)
        message, _, self._read = self._read.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def say(self, **message: Any) -> None:
        self.socket.sendall(json.dumps(message).encode() + b"\0")


@pytest.fixture
def peer() -> Iterator[Peer]:
    started = Peer()
    yield started
    started.devtools.close()
    started.socket.close()


def test_replies_find_their_callers_in_any_order(peer: Peer) -> None:
    futures = [peer.devtools.send("A.b", {"n": n}) for n in range(3)]
    for asked in reversed([peer.asked() for _ in futures]):
        assert asked["method"] == "A.b"
        peer.say(id=asked["id"], result=asked["params"])
    assert [settled(each, WAIT_S) for each in futures] == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_message_may_come_in_pieces_and_pieces_in_one(peer: Peer) -> None:
    first, second = peer.devtools.send("A.b"), peer.devtools.send("A.b")
    numbers = [peer.asked()["id"] for _ in range(2)]
    large = "x" * 3_000_000
    raw = b"".join(json.dumps({"id": n, "result": {"is": f"{n}{large}"}}).encode() + b"\0" for n in numbers)
    sender = threading.Thread(
        target=lambda: [peer.socket.sendall(raw[at : at + 99_991]) for at in range(0, len(raw), 99_991)]
    )
    sender.start()
    assert settled(first, WAIT_S) == {"is": f"{numbers[0]}{large}"}
    assert settled(second, WAIT_S) == {"is": f"{numbers[1]}{large}"}
    sender.join(WAIT_S)


def test_an_event_goes_to_its_session(peer: Peer) -> None:
    heard: list[str] = []
    peer.devtools.listen("s", lambda method, _: heard.append(method))
    peer.say(method="Page.mine", params={}, sessionId="s")
    peer.say(method="Page.strange", params={}, sessionId="t")
    peer.say(method="Target.browser", params={"a": 1})
    until(lambda: peer.events)
    assert heard == ["Page.mine"]
    assert peer.events == [("Target.browser", {"a": 1})]


def test_a_refused_command_says_why(peer: Peer) -> None:
    future = peer.devtools.send("A.b")
    peer.say(id=peer.asked()["id"], error={"code": -32000, "message": "No."})
    with pytest.raises(ProtocolError, match=r"^No\.$"):
        settled(future, WAIT_S)


def test_a_reply_that_does_not_come_is_not_waited_for(peer: Peer) -> None:
    with pytest.raises(NoReply):
        peer.devtools.call("A.b", timeout_s=0.01)


def test_a_reply_that_comes_too_late_harms_nothing(peer: Peer) -> None:
    with pytest.raises(NoReply):
        peer.devtools.call("A.b", timeout_s=0.01)
    peer.say(id=peer.asked()["id"], result={})
    future = peer.devtools.send("A.c")
    peer.say(id=peer.asked()["id"], result={"a": 1})
    assert settled(future, WAIT_S) == {"a": 1}


def test_a_released_session_wakes_who_waits_on_it_alone(peer: Peer) -> None:
    peer.devtools.listen("s", lambda *_: None)
    mine, other = peer.devtools.send("A.b", session="s"), peer.devtools.send("A.b")
    peer.devtools.release("s")
    with pytest.raises(SessionClosed):
        settled(mine, WAIT_S)
    with pytest.raises(SessionClosed):
        peer.devtools.send("A.b", session="s")
    peer.devtools.tell("A.b", session="s")
    peer.asked()
    peer.say(id=peer.asked()["id"], result={})
    assert settled(other, WAIT_S) == {}


def test_a_dead_browser_wakes_everyone(peer: Peer) -> None:
    futures = [peer.devtools.send("A.b") for _ in range(3)]
    peer.socket.close()
    for each in futures:
        with pytest.raises(BrowserUnavailable):
            settled(each, WAIT_S)
    until(lambda: peer.devtools.dead)
    with pytest.raises(BrowserUnavailable):
        peer.devtools.send("A.b")
    peer.devtools.tell("A.b")


def test_a_browser_that_hangs_up_in_a_message_is_dead(peer: Peer) -> None:
    future = peer.devtools.send("A.b")
    peer.socket.sendall(b'{"id": 1, "res')
    peer.socket.close()
    with pytest.raises(BrowserUnavailable):
        settled(future, WAIT_S)


def test_a_message_without_end_is_cut_off(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.browser.devtools.MAX_MESSAGE_BYTES", 100_000)
    future = peer.devtools.send("A.b")
    with suppress(BrokenPipeError):
        peer.socket.sendall(b"x" * 10_000_000)
    with pytest.raises(BrowserUnavailable):
        settled(future, WAIT_S)


def test_a_browser_that_reads_nothing_is_given_up(peer: Peer) -> None:
    peer.devtools._pipe.settimeout(0.05)
    future = peer.devtools.send("A.b", {"large": "x" * 10_000_000})
    with pytest.raises(BrowserUnavailable):
        settled(future, WAIT_S)
    assert peer.devtools.dead


def test_close_ends_the_reading_thread(peer: Peer) -> None:
    peer.devtools.close()
    peer.devtools.close()
    assert not peer.devtools._reader.is_alive()
