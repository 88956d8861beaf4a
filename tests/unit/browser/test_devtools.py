"""The protocol's framing and its ends, against a socket that plays the browser."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gaia.errors import BodyTooLarge, BrowserUnavailable
from tasks.browser import devtools as module
from tasks.browser.devtools import DevTools, ProtocolError, SessionClosed

WAIT_S = 10.0


class Peer:
    """The browser's end."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.devtools = DevTools(lambda method, given: self.events.append((method, given)))

    async def start(self) -> None:
        ours, theirs = socket.socketpair()
        await asyncio.get_running_loop().create_connection(lambda: self.devtools, sock=ours)
        self.reader, self.writer = await asyncio.open_connection(sock=theirs)

    async def asked(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((await self.reader.readuntil(b"\0"))[:-1])
        return found

    def say(self, **message: Any) -> None:
        self.writer.write(json.dumps(message).encode() + b"\0")


def playing(play: Callable[[Peer], Awaitable[None]]) -> None:
    async def run() -> None:
        peer = Peer()
        await peer.start()
        try:
            async with asyncio.timeout(WAIT_S):
                await play(peer)
        finally:
            peer.devtools.hang_up()
            peer.writer.close()
            await asyncio.sleep(0)

    asyncio.run(run())


def test_replies_find_their_callers_in_any_order() -> None:
    async def play(peer: Peer) -> None:
        futures = [peer.devtools.call("A.b", {"n": n}) for n in range(3)]
        for asked in reversed([await peer.asked() for _ in futures]):
            assert asked["method"] == "A.b"
            peer.say(id=asked["id"], result=asked["params"])
        assert await asyncio.gather(*futures) == [{"n": 0}, {"n": 1}, {"n": 2}]

    playing(play)


def test_a_message_may_come_in_pieces_and_pieces_in_one() -> None:
    async def play(peer: Peer) -> None:
        futures = [peer.devtools.call("A.b") for _ in range(2)]
        numbers = [(await peer.asked())["id"] for _ in futures]
        large = "x" * 3_000_000
        raw = b"".join(json.dumps({"id": n, "result": {"is": f"{n}{large}"}}).encode() + b"\0" for n in numbers)
        peer.writer.write(raw)
        assert [(await each)["is"] for each in futures] == [f"{n}{large}" for n in numbers]

    playing(play)


def test_a_refusal_is_told() -> None:
    async def play(peer: Peer) -> None:
        future = peer.devtools.call("A.b")
        peer.say(id=(await peer.asked())["id"], error={"code": 1, "message": "no"})
        with pytest.raises(ProtocolError, match="no"):
            await future

    playing(play)


def test_events_go_to_the_listener_of_their_session() -> None:
    async def play(peer: Peer) -> None:
        seen: list[str] = []
        peer.devtools.listen("s", lambda method, _: seen.append(method))
        future = peer.devtools.call("A.b", session="s")
        asked = await peer.asked()
        assert asked["sessionId"] == "s"
        peer.say(method="Of.page", sessionId="s", params={})
        peer.say(method="Of.browser", params={"x": 1})
        peer.say(method="Of.stranger", sessionId="t", params={})
        peer.say(id=asked["id"], result={})
        await future
        assert (seen, peer.events) == (["Of.page"], [("Of.browser", {"x": 1})])

    playing(play)


def test_a_released_session_wakes_its_callers_alone() -> None:
    async def play(peer: Peer) -> None:
        peer.devtools.listen("s", lambda *_: None)
        mine, other = peer.devtools.call("A.b", session="s"), peer.devtools.call("A.c")
        peer.devtools.release("s")
        with pytest.raises(SessionClosed):
            await mine
        with pytest.raises(SessionClosed):
            await peer.devtools.call("A.b", session="s")
        numbers = {asked["method"]: asked["id"] for asked in [await peer.asked(), await peer.asked()]}
        peer.say(id=numbers["A.b"], result={})
        peer.say(id=numbers["A.c"], result={"y": 1})
        assert await other == {"y": 1}

    playing(play)


def test_a_browser_that_dies_wakes_everyone_and_takes_no_more() -> None:
    async def play(peer: Peer) -> None:
        future = peer.devtools.call("A.b")
        peer.writer.close()
        with pytest.raises(BrowserUnavailable):
            await future
        assert peer.devtools.dead
        assert peer.events == [("disconnected", {})]
        with pytest.raises(BrowserUnavailable):
            await peer.devtools.call("A.b")
        peer.devtools.tell("A.b")

    playing(play)


def test_a_caller_that_gave_up_disturbs_nobody() -> None:
    async def play(peer: Peer) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await peer.devtools.call("A.b")
        number = (await peer.asked())["id"]
        peer.say(id=number, result={})
        future = peer.devtools.call("A.c")
        peer.say(id=(await peer.asked())["id"], result={"z": 1})
        assert await future == {"z": 1}

    playing(play)


def test_a_reply_over_the_bound_fails_its_caller_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MESSAGE_BYTES", 1000)

    async def play(peer: Peer) -> None:
        futures = [peer.devtools.call("A.b"), peer.devtools.call("A.c")]
        first, second = [(await peer.asked())["id"] for _ in futures]
        peer.writer.write(b'{"id":%d,"result":{"a":"' % first + b"x" * 5000)
        with pytest.raises(BodyTooLarge):
            await futures[0]
        peer.writer.write(b"x" * 5000 + b'"}}\0')
        peer.writer.write(b'{"method":"A.happened","params":{"a":"' + b"x" * 5000 + b'"}}\0')
        peer.say(id=second, result={"z": 1})
        assert await futures[1] == {"z": 1}
        assert not peer.devtools.dead

    playing(play)
