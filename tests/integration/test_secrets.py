"""Marked secrets, submitted in every field that a contract marks, are looked for in every output.

Where they may be: in the message itself, on a queue or kept with a dead letter, and where the call is to carry them.
"""

import base64
import dataclasses
import json
import os
import pickle
import re
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from celery import Celery

from gaia import Gaia, wire
from gaia.codec import dataclass_of, hints_of
from gaia.contracts.base import CALLS, Call
from gaia.errors import GaiaError
from gaia.redaction import MARK
from gaia.sticky import HolderId
from tasks.cli.server import free_port
from tests.support import cluster
from tests.support.cluster import get
from tests.support.waiting import until
from tests.support.web import Site, reply

for queue in wire.QUEUES:
    import_module(f"gaia.contracts.{queue}")

OURS = {name: kind for name, kind in sorted(CALLS.items()) if kind.__module__.startswith("gaia.")}

TRUE: Final = "/bin/true"

NEEDED: Final[dict[str, Any]] = {
    "path": "data:x", "target": "data:y", "host": "127.0.0.1", "port": 1, "name": "localhost", "names": ("localhost",),
    "argv": (TRUE,), "body": b"plain", "lease": "0123456789abcdef@a.example", "size_bytes": 1, "html": "<p>plain</p>",
    "id": HolderId.new("nobody@h", "0" * 16).format(), "tab": "t1", "expression": "1", "extract": {"a": "b"},
    "extension": b"plain", "signal": 15, "data": b"plain", "action": "wait", "value": "plain", "domain": "a.example",
}  # fmt: skip
"""What a call needs, by the name of the field."""

RESULT: Final = b"celery-task-meta-"
"""What comes before the id in the name of a stored result."""

KEPT_WHOLE: Final = "message"
"""The field of a dead letter that holds the call as it came."""


class Marks:
    """Secrets, each told by the field that it was put into."""

    def __init__(self, site: Site) -> None:
        self.of: dict[str, str] = {}
        self._site = site

    def new(self, field: str) -> str:
        secret = f"mark{len(self.of):03d}x{os.urandom(8).hex()}"
        self.of[secret] = field
        return secret

    def url(self) -> str:
        return self._site.url("/ok")

    def value(self, field: str, kind: str, hint: Any) -> Any:
        """Give a value of a marked field that holds a secret."""
        secret = self.new(field)
        if kind == "body" and ("bytes" in str(hint) or "Body" in str(hint)):
            return json.dumps({"password": secret}).encode()
        where = self._site.url(f"/ok?token={secret}&plain=1#access_token={secret}")
        headers = {"X-Api-Key": secret, "Authorization": f"Bearer {secret}", "plain": f"https://me:{secret}@h/"}
        return {
            "url": where.replace("://", f"://me:{secret}@"),
            "argv": (TRUE, f"--password={secret}", "--token", secret, f"https://me:{secret}@h/"),
            "values": {"LANG": secret},
            "named": f"/a?token={secret}" if hint is str else headers,
            "all": ("me", secret) if "tuple" in str(hint) else secret,
            "body": f"<p>password={secret}</p>" if hint is str or "str |" in str(hint) else {"password": secret},
        }[kind]

    def found_in(self, text: str) -> list[str]:
        """Say of which fields there are secrets in a text, as they are or as basic authorization."""
        found = {self.of[each] for each in re.findall(r"mark\d{3}x[0-9a-f]{16}", text) if each in self.of}
        for secret, field in self.of.items():
            if base64.b64encode(f"me:{secret}".encode()).decode() in text:
                found.add(f"{field} (basic)")
        return sorted(found)


def smallest(kind: type[Any], marks: Marks) -> dict[str, Any]:
    """Give what a contract needs and no secret."""
    given = {}
    for each in dataclasses.fields(kind):
        if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING:
            inner = inner_of(hints_of(kind)[each.name])
            if inner is not None:
                given[each.name] = (inner(**chosen(inner, marks)),)
            else:
                given[each.name] = marks.url() if each.name == "url" else NEEDED[each.name]
    return given or chosen(kind, marks)


def chosen(kind: type[Any], marks: Marks) -> dict[str, Any]:
    """Give what a contract needs of which one field of several is to be given."""
    names = {each.name for each in dataclasses.fields(kind)}
    if "action" in names:
        return {"action": NEEDED["action"]}
    if "stat" in names:
        return {"stat": CALLS["files.stat"](path="data:x")}
    return {"html": "<p>plain</p>"} if "html" in names else {"url": marks.url()} if "url" in names else {}


def inner_of(hint: Any) -> type[Any] | None:
    """Find the contract within `tuple[X, ...]` or `X | None`."""
    for each in (hint, *typing.get_args(hint)):
        if isinstance(each, type) and dataclass_of(each) is not None and each.__module__.startswith("gaia.contracts"):
            return each
    return None


def calls(kind: type[Any], marks: Marks) -> Iterator[dict[str, Any]]:
    """Give the fields of a call for each field that a contract marks, those of contracts within it too."""
    hints = hints_of(kind)
    for each in dataclasses.fields(kind):
        mark, inner = each.metadata.get(MARK), inner_of(hints[each.name])
        fields = smallest(kind, marks)
        if mark is not None:
            if each.name in {"url", "html"}:
                fields.pop("html", None)
            yield {**fields, each.name: marks.value(f"{kind.__name__}.{each.name}", mark, hints[each.name])}
        elif inner is not None and "tuple" in str(hints[each.name]) and inner is not kind:
            for fields_within in calls(inner, marks):
                yield {**fields, each.name: (inner(**fields_within),)}
        elif inner is not None and kind.__name__ == "Step":
            for fields_within in calls(inner, marks):
                yield {each.name: inner(**fields_within)}
        elif inner is not None and inner is not kind:
            for fields_within in calls(inner, marks):
                yield {**fields, each.name: inner(**fields_within)}


class Cluster:
    """A worker of every queue, the monitor, Flower, and whatever they tell."""

    def __init__(self, url: str, folder: Path, site: Site) -> None:
        self.url, self.folder = url, folder
        self.flower, self.monitor = free_port("127.0.0.1"), free_port("127.0.0.1")
        (folder / "data").mkdir()
        self.environ = {
            "GAIA_FILES__ROOTS": json.dumps({"data": str(folder / "data")}),
            "GAIA_PROCESS__EXECUTABLES": json.dumps([TRUE, "/usr/bin/true"]),
            "GAIA_EGRESS__ALLOW_CIDRS": json.dumps([f"127.0.0.1/32:{site.port}"]),
            "GAIA_FLOWER__PORT": str(self.flower),
            "GAIA_MONITOR__PORT": str(self.monitor),
            "GAIA_BROWSER__NO_SANDBOX": "true",
            "GAIA_WORKER__LOG_LEVEL": "DEBUG",
        }
        self.events: list[str] = []

    def start(self, stack: ExitStack) -> None:
        client = stack.enter_context(redis.Redis.from_url(self.url))
        self._pubsub = stack.enter_context(client.pubsub())
        self._pubsub.psubscribe("*")
        stack.enter_context(cluster.worker(self.url, *wire.QUEUES, log=self.folder / "worker.log", **self.environ))
        for name in ("monitor", "flower"):
            stack.enter_context(self._program(name))

    def _program(self, name: str) -> "Program":
        return Program(name, self.folder / f"{name}.log", {"GAIA_REDIS_URL": self.url, **self.environ})

    def hear(self) -> None:
        while (message := self._pubsub.get_message(timeout=0.05)) is not None:
            # The announcement of a result is the result: that is looked at by itself.
            if message["type"] == "pmessage" and not message["channel"].startswith(RESULT):
                data = message["data"].decode("utf-8", "replace")
                self.events.append(f"{message['channel']} {data} {decoded(data)}")


class Program:
    """A `gaia` command that runs until it is stopped."""

    def __init__(self, name: str, log: Path, environ: dict[str, str]) -> None:
        self._name, self._log, self._environ = name, log, environ

    def __enter__(self) -> None:
        command = [sys.executable, "-P", "-m", "tasks.cli.main", self._name]
        with self._log.open("w") as out:
            self._process = subprocess.Popen(
                command, env={**cluster.clean_environ(), **self._environ}, stdout=out, stderr=out
            )
        until(lambda: " at http" in self._log.read_text(), 60, what=self._name)

    def __exit__(self, *_: object) -> None:
        cluster.stop(self._process)


def decoded(data: str) -> str:
    try:
        return base64.b64decode(json.loads(data)["body"]).decode("utf-8", "replace")
    except (ValueError, KeyError, TypeError):
        return ""


@pytest.fixture
def pages(site: Site) -> Site:
    site.routes = {"/ok": reply(b"{}")}
    return site


@pytest.mark.timeout(300)
def test_no_secret_is_in_any_output(fresh_url: str, tmp_path: Path, pages: Site) -> None:
    marks, said, ids = Marks(pages), Said(), []
    with ExitStack() as stack:
        running = Cluster(fresh_url, tmp_path, pages)
        running.start(stack)
        g = stack.enter_context(Gaia(fresh_url))
        foreign = stack.enter_context(Celery("foreign", broker=fresh_url, set_as_current=False))
        pending = []
        for name, kind in OURS.items():
            for fields in calls(kind, marks):
                pending += submitted(g, foreign, kind, fields, said)
            foreign.send_task(name, args=[marks.new(f"{name} argument")], queue=kind.QUEUE)
            foreign.send_task(name, kwargs={"no_such_field": marks.new(f"{name} unknown field")}, queue=kind.QUEUE)
        foreign.send_task("api.none", kwargs={"token": marks.new("unknown operation")}, queue="api")
        assert len(marks.of) > 60
        for each in pending:
            ids.append(each.id)
            said.add(f"the repr of {each.id}", repr(each))
            try:
                said.add(f"the repr of a result {each.id}", repr(each.get(timeout=60)))
            except GaiaError as error:
                said.add_error(each.id, error)
            running.hear()
        until(lambda: sum(g.queues.sizes()[each].waiting for each in wire.QUEUES) == 0, 60)
        until(lambda: g.queues.delayed() == 0, 90)
        running.hear()
        collect(running, g, said, ids)
    for path in tmp_path.glob("*.log"):
        said.add(path.name, path.read_text())
    said.add("events", "\n".join(running.events))
    assert "\n".join(running.events).count("task-received") > 2 * len(ids) > 60
    leaks = {where: found for where, text in said.texts if (found := marks.found_in(text))}
    assert leaks == {}, leaks


class Said:
    """Every text that somebody might read."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []

    def add(self, where: str, text: str) -> None:
        self.texts.append((where, text))

    def add_error(self, where: str, error: GaiaError) -> None:
        self.add(f"the error of {where}", f"{error} {error!r} {pickle.dumps(error)!r} {vars(error)}")


def submitted(g: Gaia, foreign: Celery, kind: type[Call[Any]], fields: dict[str, Any], said: Said) -> list[Any]:
    """Submit a call typed, without anybody who reads its result, and as a foreign producer does."""
    try:
        call = kind(**fields)
    except GaiaError as error:
        said.add_error(f"a refused {kind.__name__}", error)
        return []
    said.add(f"the repr of a {kind.__name__}", f"{call!r} {call}")
    try:
        found = [g.submit(call)]
        g.submit(call, result=False)
    except GaiaError as error:
        said.add_error(f"a submit of {kind.__name__}", error)
        return []
    foreign.send_task(kind.OPERATION, kwargs=call.fields_json(), queue=kind.QUEUE)
    return found


def shown(name: bytes, value: bytes) -> str:
    """Give a string of Redis; a result without the address that was read, which its caller gets back."""
    return re.sub(r'"url": ?"[^"]*"', "", value.decode()) if name.startswith(RESULT) else repr(value)


def collect(running: Cluster, g: Gaia, said: Said, ids: list[str]) -> None:
    """Read what can be read of a cluster."""
    pages: dict[str, str] = {f"http://127.0.0.1:{running.flower}": "flower", cluster.endpoint(running.url): "worker"}
    for address, name in pages.items():
        for path in ("/metrics", "/health", "/readiness", "/", "/tasks", "/workers?json=1", "/broker"):
            said.add(f"{name} {path}", get(address + path)[1])
    for path in ("/metrics", "/health", "/workers", "/targets"):
        said.add(f"monitor {path}", get(f"http://127.0.0.1:{running.monitor}{path}")[1])
    for each in ids:
        said.add(f"flower's page of {each}", get(f"http://127.0.0.1:{running.flower}/task/{each}")[1])
    said.add("dead letters", "\n".join(map(repr, g.dead.list(10_000))))
    read: dict[bytes, Callable[[Any], str]] = {
        b"string": lambda name: shown(name, client.get(name) or b""),
        b"hash": lambda name: repr({k: v for k, v in client.hgetall(name).items() if k != KEPT_WHOLE.encode()}),
        b"zset": lambda name: repr(client.zrange(name, 0, -1)),
        b"set": lambda name: repr(client.smembers(name)),
        b"list": lambda name: repr(client.lrange(name, 0, -1)),
    }
    with redis.Redis.from_url(running.url) as client:
        for name in client.scan_iter():
            said.add(f"redis {name!r}", f"{name!r} {read[client.type(name)](name)}")
