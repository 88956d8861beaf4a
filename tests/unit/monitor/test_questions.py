"""What the page of dashboards asks reaches Prometheus; what is no answer is told in words, and nothing hangs."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from http import HTTPStatus
from typing import Any

import pytest

from tasks.cli.server import free_port
from tasks.monitor import questions as module
from tasks.monitor.questions import Questions
from tasks.runtime.pages import Asked, Page, Server
from tests.support.cluster import get
from tests.support.waiting import until
from tests.support.web import Site, hanging, reply

ASKED = Asked("/api/v1/query", {"query": "up"})
ANSWER = b'{"status":"success","data":{"resultType":"vector","result":[]}}'


def said(site: Site, body: bytes, status: int = 200) -> tuple[int, str]:
    site.routes["/api/v1/query"] = reply(body, status)
    page = Questions(site.url("")).answer(ASKED)
    return page.status, json.loads(page.body).get("error", "")


def test_a_query_and_its_answer_go_through_as_they_are(site: Site) -> None:
    site.routes["/at/api/v1/query_range"] = reply(ANSWER)
    fields = {"query": 'up{a="ü&b"}', "start": "1", "end": "2", "step": "5"}
    page = Questions(site.url("/at")).answer(Asked("/api/v1/query_range", {**fields, "debug": "1"}))
    assert (page.status, page.body) == (200, ANSWER)
    target = site.asked[0].target
    assert target.startswith("/at/api/v1/query_range?query=up%7Ba%3D%22%C3%BC%26b%22%7D&start=1&end=2&step=5&timeout=")
    assert "debug" not in target


def test_an_error_of_prometheus_is_handed_on(site: Site) -> None:
    assert said(site, b'{"status":"error","error":"bad query"}', 400) == (400, "bad query")


@pytest.mark.parametrize("query", ["", "x" * (module.QUERY_CHARACTERS + 1)])
def test_no_query_and_one_without_bound_ask_nobody(site: Site, query: str) -> None:
    assert Questions(site.url("")).answer(Asked("/api/v1/query", {"query": query})).status == HTTPStatus.BAD_REQUEST
    assert not site.asked


RUBBISH = [b"", b"<html>hello", b"[]", b"{}", b'"success"', b'{"status":"fine"}', b"\xff\xfe", b"[" * 100_000, b"null"]


@pytest.mark.parametrize("body", RUBBISH, ids=lambda each: repr(each[:10]))
def test_what_is_no_prometheus_is_told(site: Site, body: bytes) -> None:
    status, error = said(site, body)
    assert status == HTTPStatus.BAD_GATEWAY
    assert error == f"what answers at {site.url('')} is no Prometheus"


def test_what_does_not_speak_http_is_told(site: Site) -> None:
    site.routes["/api/v1/query"] = b"SSH-2.0-OpenSSH\r\n\r\n"
    assert Questions(site.url("")).answer(ASKED).status == HTTPStatus.BAD_GATEWAY


def test_a_redirect_is_not_followed(site: Site, other: Site) -> None:
    site.routes["/api/v1/query"] = reply(b"", 302, f"Location: {other.url('/api/v1/query')}")
    assert Questions(site.url("")).answer(ASKED).status == HTTPStatus.BAD_GATEWAY
    assert not other.asked


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}", "https://127.0.0.1:{port}", "http://no-such.invalid"])
def test_a_prometheus_that_is_away_is_told(address: str) -> None:
    page = Questions(address.format(port=free_port("127.0.0.1"))).answer(ASKED)
    assert page.status == HTTPStatus.BAD_GATEWAY
    assert "cannot be reached" in json.loads(page.body)["error"]


def test_an_answer_that_is_too_large_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_BYTES", 20)
    assert said(site, ANSWER)[0] == HTTPStatus.BAD_GATEWAY


@pytest.mark.parametrize("begins", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nx"], ids=["silent", "slow"])
def test_one_that_hangs_is_left(site: Site, monkeypatch: pytest.MonkeyPatch, begins: bytes) -> None:
    def hang(_: Any, sock: Any) -> None:
        sock.sendall(begins)
        site.stopped.wait(30)

    monkeypatch.setattr(module, "BOUND_S", 0.2)
    site.routes["/api/v1/query"] = hang
    assert Questions(site.url("")).answer(ASKED).status == HTTPStatus.GATEWAY_TIMEOUT


def stuck(site: Site) -> AbstractContextManager[threading.Semaphore]:
    """Have Prometheus hang."""
    return hanging(site, "/api/v1/query", at_last=reply(ANSWER))


def test_one_that_hangs_is_asked_by_few_and_others_wait_for_their_turn(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PLACE_BOUND_S", 0.0)
    questions = Questions(site.url(""))
    with ThreadPoolExecutor(module.AT_ONCE) as pool, stuck(site) as told:
        found = [pool.submit(questions.answer, ASKED) for _ in range(module.AT_ONCE)]
        for _ in found:
            assert told.acquire(timeout=20)
        assert questions.answer(ASKED).status == HTTPStatus.SERVICE_UNAVAILABLE
    assert {each.result().status for each in found} == {HTTPStatus.OK}
    assert questions.answer(ASKED).status == HTTPStatus.OK


def test_one_that_hangs_leaves_places_for_probes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLACE_BOUND_S", 60.0)
    monkeypatch.setattr(module, "BOUND_S", 60.0)
    questions, many = Questions(site.url("")), 20

    def answer(asked: Asked) -> Page:
        return questions.answer(asked) if asked.path in module.PATHS else Page(b"alive")

    server = Server("127.0.0.1", 0, answer)
    server.start()
    address = f"http://127.0.0.1:{server.port}"
    with closing(server), ThreadPoolExecutor(many) as pool, stuck(site) as told:
        found = [pool.submit(get, f"{address}/api/v1/query?query=up") for _ in range(many)]
        for _ in range(module.AT_ONCE):
            assert told.acquire(timeout=20)
        until(lambda: sum(each.done() for each in found) >= many - module.AT_ONCE - module.WAITING)
        assert get(f"{address}/liveness") == (200, "alive")
