"""One engine, one measurement: `python engines.py NAME URL TIMES AT_ONCE` prints a line of JSON.

Sends so many GETs, so many of them at once, and reads every answer. It runs in Gaia's environment or in the peers', so
it imports what its contender needs, alone. `loop` is no engine: bare sockets, the least that the server has to bear.
"""

import json
import select
import socket
import sys
import time
from collections.abc import Callable
from urllib.parse import urlsplit

Run = Callable[[int], None]


def libcurl(url: str, at_once: int) -> Run:
    """The bulk engine of the api queue: judged addresses, header and body callbacks, bounds, answers read."""
    import queue

    from requests.utils import DEFAULT_CA_BUNDLE_PATH

    from gaia.contracts import api
    from tasks.api import outgoing
    from tasks.api.budget import Budget
    from tasks.api.engine import Engine
    from tasks.api.transfer import Transfer
    from tasks.egress.judge import Judge

    engine = Engine(Judge([f"127.0.0.1/32:{urlsplit(url).port}"]), at_once, 5.0, DEFAULT_CA_BUNDLE_PATH)
    budget = Budget(1 << 40)
    done: queue.SimpleQueue[list[Transfer]] = queue.SimpleQueue()

    def one() -> Transfer:
        sent = outgoing.first(api.Request(url=url), "bench")
        return Transfer(
            sent=sent, fields=sent.headers, addresses=("127.0.0.1",), verify=True, timeout_s=30.0,
            connect_timeout_s=5.0, limit_bytes=8 << 20, follows=True, operation="api.request_many",
            whole_timeout_s=30.0, done=done.put, budget=budget,
        )  # fmt: skip

    def run(times: int) -> None:
        left = times
        started = min(at_once, times)
        engine.submit([one() for _ in range(started)])
        while left:
            ended = done.get()
            for each in ended:
                if each.answer is None or each.answer.status != 200 or len(each.answer.body) != 1024:  # noqa: PLR2004
                    raise SystemExit(f"no answer: {each.error}")
            left -= len(ended)
            more = min(len(ended), times - started)
            started += more
            if more:
                engine.submit([one() for _ in range(more)])

    return run


def aiohttp(url: str, at_once: int) -> Run:
    """Measure aiohttp as it comes, on the event loop of the standard library; judged by nobody."""
    import asyncio

    return _aiohttp(url, at_once, asyncio.Runner())


def aiohttp_uvloop(url: str, at_once: int) -> Run:
    """The same on uvloop."""
    import asyncio

    import uvloop

    return _aiohttp(url, at_once, asyncio.Runner(loop_factory=uvloop.new_event_loop))


def _aiohttp(url: str, at_once: int, runner: "object") -> Run:
    import asyncio

    import aiohttp as peer

    kept: list[peer.ClientSession] = []

    async def work(left: list[int]) -> None:
        while left[0]:
            left[0] -= 1
            async with kept[0].get(url) as answer:
                if answer.status != 200 or len(await answer.read()) != 1024:  # noqa: PLR2004
                    raise SystemExit("no answer")

    async def everything(times: int) -> None:
        if not kept:
            kept.append(peer.ClientSession(connector=peer.TCPConnector(limit=at_once)))
        left = [times]
        await asyncio.gather(*(work(left) for _ in range(at_once)))

    def run(times: int) -> None:
        runner.run(everything(times))  # type: ignore[attr-defined]  # an asyncio.Runner, which no annotation may import

    return run


def loop(url: str, at_once: int) -> Run:
    """Bare sockets: what the server is able to answer."""
    parts = urlsplit(url)
    question = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
    socks = [socket.create_connection((parts.hostname, parts.port)) for _ in range(at_once)]
    poll = select.epoll()
    by_fd = {each.fileno(): each for each in socks}
    for each in socks:
        poll.register(each, select.EPOLLIN)

    def run(times: int) -> None:
        asked, answered = min(at_once, times), 0
        for each in socks[:asked]:
            each.send(question)
        while answered < times:
            for fd, _ in poll.poll(10):
                if not by_fd[fd].recv(65536):
                    raise SystemExit("the server left")
                answered += 1
                if asked < times:
                    by_fd[fd].send(question)
                    asked += 1

    return run


ENGINES = {"loop": loop, "libcurl": libcurl, "aiohttp": aiohttp, "aiohttp_uvloop": aiohttp_uvloop}


def main() -> None:
    """Measure after a warm-up that opens every connection."""
    name, url, times, at_once = sys.argv[1:]
    run = ENGINES[name](url, int(at_once))
    run(2 * int(at_once))
    wall, cpu = time.monotonic(), time.process_time()
    run(int(times))
    print(json.dumps({"wall_s": time.monotonic() - wall, "cpu_s": time.process_time() - cpu}), flush=True)


if __name__ == "__main__":
    main()
