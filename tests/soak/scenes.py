"""What is asked of the queues: what works, what fails, what is called off, what is left open and what is killed.

A scene knows what must come of its calls, uses names that nobody used before, and removes what it made.
"""

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial, update_wrapper
from typing import Any

from gaia import api, browser, files, network, process
from gaia.contracts.base import Call
from gaia.errors import (
    ArchiveRefused,
    BodyTooLarge,
    BrowserUnavailable,
    Cancelled,
    ConnectFailed,
    Expired,
    FileMissing,
    LeaseLost,
    NameNotFound,
    NavigationFailed,
    PageTimedOut,
    PreconditionFailed,
    ResolverFailed,
    ServerBusy,
    SessionMissing,
    StepFailed,
    TimedOut,
)
from tests.soak.leaks import Leak
from tests.soak.load import Ask, Scene
from tests.soak.scenery import BIG_BYTES, Scenery
from tests.support.waiting import until

ONCE = api.Retry(attempts=1)
CLOSED_PORT = 1
Kill = Callable[[], int]
"""Kill the browsers of the worker; give how many there were."""


# --- api


def requests(scenery: Scenery, ask: Ask) -> None:
    for path, status in (("/json", 200), ("/missing", 404), ("/away", 200)):
        reply = ask.result(api.Request(scenery.site.url(path)))
        assert reply.status == status
    assert len(ask.result(api.Request(scenery.site.url("/big"))).body) == BIG_BYTES


def request_to_a_new_host(scenery: Scenery, ask: Ask) -> None:
    with scenery.host(ask.number()) as name:
        assert ask.result(api.Request(scenery.site.url("/json", name))).status == 200


def requests_that_fail(scenery: Scenery, ask: Ask) -> None:
    ask.ends_in(TimedOut, api.Request(scenery.site.url("/hang"), timeout_s=0.2, retry=ONCE))
    ask.ends_in(ConnectFailed, api.Request(scenery.site.url("/broken"), retry=ONCE))
    ask.ends_in(ConnectFailed, api.Request(f"http://127.0.0.1:{CLOSED_PORT}/", retry=ONCE))
    ask.ends_in(NameNotFound, api.Request(f"http://n{ask.number()}.none.test/", retry=ONCE))
    ask.ends_in(BodyTooLarge, api.Request(scenery.site.url("/big"), max_body_bytes=1000))


def request_that_is_retried(scenery: Scenery, ask: Ask) -> None:
    call = api.Request(scenery.site.url(f"/flaky?{ask.number()}"), retry=api.Retry(base_s=0.01))
    with suppress(ServerBusy):  # the host's budget of retries was used up
        assert ask.result(call).attempts == 2


def request_that_is_cancelled(scenery: Scenery, ask: Ask) -> None:
    pending = ask.submit(api.Request(scenery.site.url("/hang"), retry=ONCE))
    pending.cancel()
    # Where the cancel comes too late, the server has hung up.
    ask.fails((Cancelled, ConnectFailed), pending)


def request_many(scenery: Scenery, ask: Ask) -> None:
    paths = ("/json", "/missing", "/big", "/broken") * 3
    calls = tuple(api.Request(scenery.site.url(each), retry=ONCE) for each in paths)
    found = ask.result(api.RequestMany(calls, concurrency=4)).items
    assert [each.ok for each in found] == [each != "/broken" for each in paths]


def downloads(scenery: Scenery, ask: Ask) -> None:
    found = ask.result(api.Download(scenery.site.url("/big")))
    with ask.gaia.open(found.artifact) as body:
        assert len(body.read()) == BIG_BYTES
    ask.ends_in(BodyTooLarge, api.Download(scenery.site.url("/big"), max_bytes=1000))


def download_that_breaks_off(scenery: Scenery, ask: Ask) -> None:
    ask.ends_in((TimedOut, ConnectFailed), api.Download(scenery.site.url("/drip"), idle_s=0.2, retry=ONCE))
    pending = ask.submit(api.Download(scenery.site.url("/drip"), retry=ONCE))
    until(lambda: pending.progress() or pending.ready(), 20)
    pending.cancel()
    ask.fails((Cancelled, ConnectFailed, TimedOut), pending)


# --- files


def written_and_read(scenery: Scenery, ask: Ask) -> None:
    path = f"data:w{ask.number()}/one.bin"
    ask.result(files.MakeDir(path.rpartition("/")[0]))
    body = os.urandom(20_000)
    etag = ask.result(files.Write(path, body, durable=False)).etag
    assert ask.result(files.Read(path)).body == body
    ask.ends_in(PreconditionFailed, files.Write(path, b"x", if_etag=f"{etag}0"))
    ask.result(files.Append(path, b"line\n", durable=False))
    assert ask.result(files.Tail(path, lines=1)).body.endswith(b"line\n")
    ask.result(files.Copy(path, f"{path}.copy", durable=False))
    ask.result(files.Move(f"{path}.copy", f"{path}.moved", durable=False))
    ask.ends_in(FileMissing, files.Read(f"{path}.copy"))
    assert len(ask.result(files.List(path.rpartition("/")[0])).entries) == 2
    ask.result(files.Delete(path.rpartition("/")[0], recursive=True))


def large_file(scenery: Scenery, ask: Ask) -> None:
    path = f"data:l{ask.number()}"
    ask.result(files.Write(path, bytes(BIG_BYTES), durable=False))
    artifact = ask.result(files.Stream(path=path)).artifact
    assert artifact is not None
    assert ask.result(files.Stream(artifact=artifact, target=f"{path}.back", durable=False)).size_bytes == BIG_BYTES
    ask.result(files.Batch.of(files.Checksum(path), files.Delete(path), files.Delete(f"{path}.back")))


def archive(scenery: Scenery, ask: Ask) -> None:
    path = f"data:a{ask.number()}"
    ask.result(files.Write(f"{path}/in/one.json", b'{"a": [1, 2]}', durable=False))
    assert ask.result(files.ParseJson(f"{path}/in/one.json")).value == {"a": [1, 2]}
    ask.result(files.Pack(f"{path}/in", f"{path}/packed.tar.gz", durable=False))
    assert ask.result(files.Unpack(f"{path}/packed.tar.gz", f"{path}/out", durable=False)).entries >= 1
    ask.ends_in(ArchiveRefused, files.Unpack(f"{path}/packed.tar.gz", f"{path}/no", max_bytes=1))
    assert ask.result(files.Walk(path)).paths
    ask.result(files.Delete(path, recursive=True))


def tail_that_is_cancelled(scenery: Scenery, ask: Ask) -> None:
    path = f"data:t{ask.number()}"
    ask.result(files.Write(path, b"x", durable=False))
    pending = ask.submit(files.Tail(path, from_bytes=1, wait_s=20))
    pending.cancel()
    ask.fails(Cancelled, pending)
    ask.result(files.Delete(path))


# --- process


def shell(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


def programs(scenery: Scenery, ask: Ask) -> None:
    assert ask.result(process.Run(("/bin/cat",), stdin=b"in")).stdout == b"in"
    assert ask.result(process.Run(shell("echo made > file; exit 3"))).exit_code == 3
    flood = process.Run(shell("yes | head -c 100000"), limits=process.Limits(output_bytes=10_000))
    assert ask.result(flood).truncated


def program_out_of_time(scenery: Scenery, ask: Ask) -> None:
    # A tree of which one has left its session.
    script = "setsid sleep 100 & sleep 100 & sleep 100"
    assert ask.result(process.Run(shell(script), timeout_s=0.2)).exit_code != 0


def program_that_is_cancelled(scenery: Scenery, ask: Ask) -> None:
    pending = ask.submit(process.Run(("/bin/sleep", "100")))
    pending.cancel()
    ask.fails(Cancelled, pending)


def started_programs(scenery: Scenery, ask: Ask) -> None:
    spoken = ask.result(process.Start(shell("read line; echo got $line"), stdin_open=True)).id
    ask.result(process.Write(spoken, b"it\n", close=True))
    state = ask.result(process.Wait(spoken))
    assert state.exited is not None
    assert state.exited.stdout == b"got it\n"
    killed = ask.result(process.Start(shell("sleep 100 & sleep 100"))).id
    assert ask.result(process.Status(killed)).running
    ask.result(process.Kill(killed))
    for each in (spoken, killed):
        ask.result(process.Cleanup(each))


def keeper_that_is_killed(scenery: Scenery, ask: Ask) -> None:
    """Kill the program that was started by the kernel's number: nobody told the worker."""
    started = ask.result(process.Start(("/bin/sleep", "100")))
    os.kill(started.pid, signal.SIGKILL)
    state = ask.result(process.Wait(started.id))
    assert state.exited is not None
    ask.result(process.Cleanup(started.id))


# --- network


def names(scenery: Scenery, ask: Ask) -> None:
    assert ask.result(network.Resolve("www.test")).addresses == ("127.0.0.1",)
    with scenery.host(ask.number()) as name:
        found = ask.result(network.ResolveMany((name, "www.test", f"n{ask.number()}.none.test"))).items
    assert [each.ok for each in found] == [True, True, False]
    ask.ends_in((ResolverFailed, TimedOut), network.Resolve("silent.test", timeout_s=0.2))
    ask.result(network.FlushDns())


def probes(scenery: Scenery, ask: Ask) -> None:
    assert ask.result(network.ProbeHttp(scenery.site.url("/json"))).status == 200
    assert ask.result(network.ProbeTcp("127.0.0.1", scenery.site.port)).port == scenery.site.port
    ask.ends_in(ConnectFailed, network.ProbeTcp("127.0.0.1", CLOSED_PORT))
    ask.ends_in(TimedOut, network.ProbeHttp(scenery.site.url("/hang"), timeout_s=0.2))
    ask.result(network.Ping("127.0.0.1", count=1, port=scenery.site.port))


def connections(scenery: Scenery, ask: Ask) -> None:
    host = f"c{ask.number()}.test"
    lease = ask.result(network.AcquireConnection(host)).lease
    ask.result(network.ReleaseConnection(lease))
    ask.ends_in(LeaseLost, network.ReleaseConnection(lease))
    ask.result(network.AcquireConnection(host, ttl_s=1))  # nobody gives it back
    ask.result(network.Throttle(10, host=host))


def delivery(scenery: Scenery, ask: Ask) -> None:
    """Delay, key, expiry and cancel of a call that waits: what stands around every queue's calls."""
    call = network.Resolve("www.test")
    assert ask.result(call, delay=0.2).addresses
    key = f"soak-{ask.number()}"
    assert ask.result(call, idempotency_key=key) == ask.result(call, idempotency_key=key)
    ask.ends_in(Expired, call, delay=0.2, expires=0.001)
    pending = ask.submit(call, delay=30)
    pending.cancel()
    ask.fails(Cancelled, pending)
    ask.submit(call, result=False)


# --- browser


def captures(scenery: Scenery, ask: Ask) -> None:
    page = ask.result(browser.Capture(scenery.site.url(), formats=("png", "text", "html")))
    assert page.png is not None
    assert "Here" in str(page.text)
    ask.ends_in(PageTimedOut, browser.Capture(scenery.site.url(), wait_for="#no", timeout_s=1))


def capture_of_nothing(scenery: Scenery, ask: Ask) -> None:
    ask.ends_in(NavigationFailed, browser.Capture(f"http://n{ask.number()}.none.test/", timeout_s=5))


def captures_beside(scenery: Scenery, ask: Ask) -> None:
    pending = [ask.submit(browser.Capture(scenery.site.url(), formats=("pdf",))) for _ in range(2)]
    last = ask.submit(browser.Capture(scenery.site.url("/hang"), timeout_s=20))
    last.cancel()
    assert all(each.get(60).pdf for each in pending)
    ask.fails((Cancelled, NavigationFailed, PageTimedOut), last)


def session(scenery: Scenery, ask: Ask) -> None:
    opened = ask.result(browser.Open()).id
    assert ask.result(browser.Navigate(opened, scenery.site.url())).title == "Soak"
    tab = ask.result(browser.OpenTab(opened, scenery.site.url())).tab
    steps = (browser.Step("type", "#name", "me"), browser.Step("click", "#go"))
    ask.result(browser.Act(opened, steps, tab))
    assert ask.result(browser.Evaluate(opened, "document.getElementById('out').textContent", tab)).value == "me"
    ask.ends_in(StepFailed, browser.Act(opened, (browser.Step("click", "#no", timeout_s=0.2),), tab))
    assert ask.result(browser.Screenshot(opened, tab)).picture
    ask.result(browser.Close(opened))
    ask.ends_in(SessionMissing, browser.Content(opened))


def session_left_alone(scenery: Scenery, ask: Ask) -> None:
    opened = ask.result(browser.Open(idle_s=1)).id
    with suppress(SessionMissing):  # on a busy machine the second has passed
        ask.result(browser.Navigate(opened, scenery.site.url()))


def browsers_that_are_killed(kill: Kill, scenery: Scenery, ask: Ask) -> None:
    opened = ask.result(browser.Open()).id
    assert kill()
    ask.ends_in((SessionMissing, BrowserUnavailable), browser.Content(opened))
    assert ask.result(browser.Capture(scenery.site.url(), formats=("text",))).text


def quick_calls(scenery: Scenery) -> list[Call[Any]]:
    """Give a call of each queue that works; many of them at once fill what a worker keeps for later."""
    return [
        api.Request(scenery.site.url("/json")),
        files.List("data:"),
        process.Run(("/bin/cat",)),
        network.Resolve("www.test"),
        browser.Capture(html="x", formats=("text",)),
        Leak(),
    ]


def killing(scenery: Scenery, kill: Kill) -> dict[str, Sequence[Scene]]:
    """Give the scene for a phase of its own: what the others left in a browser would go with it, uncounted."""
    return {"browser": [update_wrapper(partial(browsers_that_are_killed, kill, scenery), browsers_that_are_killed)]}


def decks(scenery: Scenery, only: Sequence[str]) -> dict[str, Sequence[Scene]]:
    """Give the scenes of queues, as `api`, or single ones, as `api.downloads`."""
    found: dict[str, list[Callable[[Scenery, Ask], None]]] = {
        "api": [
            *(requests, request_to_a_new_host, requests_that_fail, request_that_is_retried),
            *(request_that_is_cancelled, request_many, downloads, download_that_breaks_off),
        ],
        "files": [written_and_read, large_file, archive, tail_that_is_cancelled],
        "process": [
            *(programs, program_out_of_time, program_that_is_cancelled, started_programs, keeper_that_is_killed),
        ],
        "network": [names, probes, connections, delivery],
        "browser": [
            *(captures, captures_beside, capture_of_nothing, session, session_left_alone),
        ],
    }
    chosen = {
        queue: [each for each in scenes if queue in only or f"{queue}.{each.__name__}" in only]
        for queue, scenes in found.items()
    }
    return {
        queue: [update_wrapper(partial(each, scenery), each) for each in scenes]
        for queue, scenes in chosen.items()
        if scenes
    }
