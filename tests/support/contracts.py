"""Random calls and results, built from the type hints of the contracts."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from gaia.codec import Artifact, Text
from gaia.contracts import api, browser, files, network, process
from gaia.contracts.base import CALLS, Call, Result
from gaia.errors import GaiaError
from gaia.outcome import Outcome
from gaia.sticky import HolderId

TEXT: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
_TOKEN: Final = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=10)
_LINE: Final = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=20)
_URL: Final = st.sampled_from(["http://a.example/", "https://u:pw@b.example:8443/x?token=1#y", "http://[::1]/ü"])
_HOST: Final = st.sampled_from(["a.example", "192.0.2.1", "::1"])
_PATH: Final = st.sampled_from(["data:x", "data:", "r2:a b/ü"])
EXAMPLES = 25
"""For each of some 130 contracts."""

PROGRAM: Final = HolderId.new("process@h", "0" * 16).format()
_STARTING: Final = (process.Run, process.Start)
_ABOUT_A_PROGRAM: Final = (
    *(process.Status, process.Wait, process.Write, process.Output),
    *(process.Signal, process.Terminate, process.Kill),
)
_COUNTS: Final = ("memory_bytes", "output_bytes", "cpu_percent", "processes", "open_files", "file_bytes")
_STEP: Final = st.sampled_from(
    [files.Step(stat=files.Stat("data:x")), files.Step(write=files.Write("data:x", b"body", durable=False))]
)

_RETRY: Final = st.builds(
    api.Retry, attempts=st.integers(1, 20), statuses=st.sampled_from([(), (503,)]), any_method=st.booleans()
)

SESSION: Final = HolderId.new("browser@h", "0" * 16).format()
_FIELDS: Final = st.dictionaries(TEXT, st.sampled_from(["a@href", "//b"]), min_size=1, max_size=3)
_ACTION: Final = st.sampled_from(
    [
        browser.Step("click", selector="#a"),
        browser.Step("type", selector="#a", text="hunter2"),
        browser.Step("wait", timeout_s=0.5),
        browser.Step("navigate", url="http://a.example/"),
    ]
)
_COOKIE: Final = st.sampled_from([browser.Cookie("a", "secret", domain="a.example", expires_s=1.5)])
_ABOUT_ONE: Final = (
    *(browser.Act, browser.Close, browser.CloseTab, browser.Content, browser.Cookies, browser.Evaluate),
    *(browser.Extract, browser.LoadExtension, browser.Navigate, browser.OpenTab, browser.Pdf, browser.Screenshot),
    browser.Status,
)

FIELDS: Final[dict[tuple[type[Any], str], st.SearchStrategy[Any]]] = {
    (api.Request, "url"): _URL,
    (api.Request, "method"): st.sampled_from(sorted(api.METHODS)),
    (api.Request, "headers"): st.dictionaries(_TOKEN, _LINE, max_size=3),
    (api.Request, "timeout_s"): st.floats(0.001, 3600),
    (api.Request, "max_redirects"): st.integers(0, 50),
    (api.Request, "max_body_bytes"): st.integers(0, 64 * 1024 * 1024),
    (api.Request, "retry"): _RETRY,
    (api.Request, "proxy"): st.none() | _TOKEN,
    (api.Request, "tenant"): st.none() | _TOKEN,
    (api.RequestMany, "calls"): st.lists(_URL.map(lambda url: api.Request(url=url)), min_size=1, max_size=3).map(tuple),
    (api.RequestMany, "concurrency"): st.integers(1, 1000),
    (api.Download, "url"): _URL,
    (api.Download, "headers"): st.dictionaries(_TOKEN.filter(lambda name: len(name) < 5), _LINE, max_size=3),
    (api.Download, "idle_s"): st.floats(0.001, 3600),
    (api.Download, "max_redirects"): st.integers(0, 50),
    (api.Download, "max_bytes"): st.integers(0, 2**40),
    (api.Download, "sha256"): st.none() | st.just("0" * 64),
    (api.Download, "retry"): _RETRY,
    (api.Download, "proxy"): st.none() | _TOKEN,
    (api.Download, "tenant"): st.none() | _TOKEN,
    (browser.Capture, "url"): st.none() | _URL,
    (browser.Capture, "timeout_s"): st.floats(0.001, 3600),
    (browser.Capture, "formats"): st.lists(st.sampled_from(browser.FORMATS), min_size=1).map(tuple),
    (browser.Capture, "wait_for"): st.none() | st.sampled_from(["#id", "a > b"]),
    (browser.Capture, "steps"): st.lists(_ACTION, max_size=3).map(tuple),
    (browser.Capture, "extract"): st.none() | _FIELDS,
    (browser.Capture, "tenant"): st.none() | st.just("acme"),
    (browser.Open, "tenant"): st.none() | st.just("acme"),
    (browser.Open, "idle_s"): st.floats(1, 86_400),
    (browser.Navigate, "url"): _URL,
    (browser.OpenTab, "url"): st.none() | _URL,
    (browser.Act, "steps"): st.lists(_ACTION, max_size=3).map(tuple),
    (browser.Extract, "extract"): _FIELDS,
    (browser.Evaluate, "expression"): st.sampled_from(["1", "a => 'ü'"]),
    (browser.Cookies, "add"): st.lists(_COOKIE, max_size=3).map(tuple),
    (browser.Context, "locale"): st.none() | st.just("de-DE"),
    (browser.Context, "timezone"): st.none() | st.just("Europe/Berlin"),
    (browser.Context, "user_agent"): st.none() | st.just("x/1"),
    (browser.Context, "headers"): st.dictionaries(st.sampled_from(["X-A", "Cookie"]), st.just("v"), max_size=2),
    **{(kind, "id"): st.just(SESSION) for kind in _ABOUT_ONE},
    **{(kind, "id"): st.none() | st.just(SESSION) for kind in (browser.List, browser.Stats, browser.Health)},
    **{(kind, "tab"): st.none() | st.just("t1") for kind in _ABOUT_ONE},
    (browser.CloseTab, "tab"): st.just("t1"),
    (browser.Navigate, "wait_for"): st.none() | st.just("#id"),
    **{(kind, "timeout_s"): st.floats(0.001, 3600) for kind in (*_ABOUT_ONE, browser.Open, browser.Health)},
    (browser.Viewport, "width"): st.integers(1, 8192),
    (browser.Viewport, "height"): st.integers(1, 8192),
    (browser.Viewport, "scale"): st.floats(0.1, 4),
    (files.Append, "path"): _PATH,
    (files.Checksum, "path"): _PATH,
    (files.Delete, "path"): _PATH,
    (files.List, "path"): _PATH,
    (files.List, "limit"): st.integers(1, 10_000),
    (files.List, "cursor"): st.none() | _LINE.filter(bool),
    (files.MakeDir, "path"): _PATH,
    (files.ParseCsv, "path"): _PATH,
    (files.ParseCsv, "limit"): st.integers(1, 10_000),
    (files.ParseCsv, "cursor"): st.none() | _LINE.filter(bool),
    (files.ParseJson, "path"): _PATH,
    (files.ParseJson, "cursor"): st.none() | _LINE.filter(bool),
    (files.ParseJsonl, "path"): _PATH,
    (files.ParseJsonl, "limit"): st.integers(1, 10_000),
    (files.ParseJsonl, "cursor"): st.none() | _LINE.filter(bool),
    (files.ParseXml, "path"): _PATH,
    (files.ParseXml, "limit"): st.integers(1, 10_000),
    (files.ParseXml, "cursor"): st.none() | _LINE.filter(bool),
    (files.ReadRange, "path"): _PATH,
    (files.Stat, "path"): _PATH,
    (files.Stream, "path"): _PATH,
    (files.Tail, "path"): _PATH,
    (files.Walk, "path"): _PATH,
    (files.Walk, "limit"): st.integers(1, 10_000),
    (files.Walk, "cursor"): st.none() | _LINE.filter(bool),
    (files.Copy, "path"): _PATH,
    (files.Copy, "target"): _PATH,
    (files.Move, "path"): _PATH,
    (files.Move, "target"): _PATH,
    (files.Pack, "path"): _PATH,
    (files.Pack, "target"): _PATH,
    (files.Unpack, "path"): _PATH,
    (files.Unpack, "target"): _PATH,
    (files.ParseJson, "limit"): st.none() | st.integers(1, 100_000),
    (files.ParseJsonl, "query"): st.sampled_from(["", "/a/0"]),
    (files.Append, "if_size_bytes"): st.none() | st.integers(0, 2**63),
    (files.ReadRange, "offset_bytes"): st.integers(0, 2**62),
    (files.ReadRange, "size_bytes"): st.integers(0, 64 * 1024 * 1024),
    (files.Tail, "lines"): st.integers(0, 100_000),
    (files.Tail, "from_bytes"): st.none() | st.integers(0, 2**62),
    (files.Tail, "max_bytes"): st.integers(1, 64 * 1024 * 1024),
    (files.Tail, "wait_s"): st.floats(0, 3600),
    (files.List, "pattern"): st.sampled_from(["*", "*.json"]),
    (files.Walk, "pattern"): st.sampled_from(["**", "**/*.json"]),
    (files.Walk, "max_depth"): st.integers(1, 255),
    (files.ParseCsv, "columns"): st.sampled_from([(), ("a", "b")]),
    (files.ParseCsv, "first_row_names"): st.just(value=True),
    (files.ParseCsv, "delimiter"): st.sampled_from([",", ";", "\t"]),
    (files.Stream, "artifact"): st.none(),
    (files.Stream, "target"): st.none() | _PATH,
    (files.Batch, "steps"): st.lists(_STEP, min_size=1, max_size=3).map(tuple),
    (files.Write, "if_absent"): st.just(value=False),
    (files.Pack, "max_bytes"): st.integers(0, 2**50),
    (files.Pack, "max_entries"): st.integers(0, 10_000_000),
    (files.Unpack, "max_bytes"): st.integers(0, 2**50),
    (files.Unpack, "max_entries"): st.integers(0, 10_000_000),
    (files.Write, "path"): _PATH,
    (files.Read, "path"): _PATH,
    (files.Read, "max_bytes"): st.integers(0, 64 * 1024 * 1024),
    (network.Resolve, "name"): st.sampled_from(["a.example", "localhost", "bücher.example"]),
    (network.Resolve, "timeout_s"): st.floats(0.001, 60),
    **{(kind, "argv"): st.lists(_LINE, max_size=4).map(lambda rest: ("/bin/x", *rest)) for kind in _STARTING},
    **{(kind, "env"): st.dictionaries(st.sampled_from(["A", "X_Y"]), _LINE, max_size=3) for kind in _STARTING},
    **{(kind, "cwd"): st.none() | _PATH for kind in _STARTING},
    **{(kind, "timeout_s"): st.floats(0.001, 86_400) for kind in (*_STARTING, process.Wait)},
    **{(process.Limits, each): st.none() | st.integers(32, 2**40) for each in _COUNTS},
    (process.Limits, "cpu_s"): st.none() | st.floats(0.001, 86_400),
    **{(kind, "id"): st.just(PROGRAM) for kind in _ABOUT_A_PROGRAM},
    (process.Cleanup, "id"): st.none() | st.just(PROGRAM),
    (process.Write, "timeout_s"): st.floats(0.001, 30),
    (process.Output, "offset"): st.integers(0, 2**62),
    (process.Output, "max_bytes"): st.integers(1, 64 * 1024 * 1024),
    (process.Output, "wait_s"): st.floats(0, 30),
    (process.Signal, "signal"): st.integers(1, 64),
    (process.Terminate, "grace_s"): st.floats(0, 30),
    (network.Resolve, "servers"): st.sampled_from([(), ("192.0.2.53", "[2001:db8::1]:53")]),
    (network.ResolveMany, "timeout_s"): st.floats(0.001, 600),
    (network.Throttle, "size_bytes"): st.integers(1, network.SIZE_LIMIT_BYTES),
    (network.Throttle, "host"): st.none() | _HOST,
    (network.Throttle, "key"): st.none() | _TOKEN,
    (network.Throttle, "job"): st.none() | _TOKEN,
    (network.Throttle, "timeout_s"): st.floats(0.001, 3600),
    (network.AcquireConnection, "host"): _HOST,
    (network.AcquireConnection, "ttl_s"): st.floats(1, 86_400),
    (network.AcquireConnection, "timeout_s"): st.floats(0.001, 60),
    (network.ReleaseConnection, "lease"): st.sampled_from(["0123456789abcdef@a.example", "0123456789abcdef@::1"]),
    (network.ProbeTcp, "host"): _HOST,
    (network.ProbeTcp, "port"): st.integers(1, 65535),
    (network.ProbeTcp, "timeout_s"): st.floats(0.001, 60),
    (network.ProbeTls, "host"): _HOST,
    (network.ProbeTls, "port"): st.integers(1, 65535),
    (network.ProbeTls, "server_name"): st.none() | _HOST,
    (network.ProbeTls, "alpn"): st.sampled_from([(), ("h2",)]),
    (network.ProbeTls, "timeout_s"): st.floats(0.001, 60),
    (network.ProbeHttp, "url"): st.sampled_from(["http://a.example/", "https://b.example:8443/x?token=1"]),
    (network.ProbeHttp, "headers"): st.dictionaries(_TOKEN, _LINE, max_size=3),
    (network.ProbeHttp, "timeout_s"): st.floats(0.001, 300),
    (network.Ping, "host"): _HOST,
    (network.Ping, "count"): st.integers(1, 20),
    (network.Ping, "port"): st.integers(1, 65535),
    (network.Ping, "timeout_s"): st.floats(0.001, 60),
}
"""Fields whose values have bounds besides their types."""

SUBSYSTEMS: Final = frozenset({"api", "files", "browser", "process", "network"})


def calls() -> list[type[Call[Any]]]:
    """Give every contract of a subsystem's call; the tests' own operations are not among them."""
    return [CALLS[name] for name in sorted(CALLS) if CALLS[name].QUEUE in SUBSYSTEMS]


def results() -> list[type[Result]]:
    """Give the type of every result."""
    return [each.RESULT for each in calls()]


def any_of(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Give values of a contract; a field with a default is left out at times."""
    hints = get_type_hints(kind)
    needed: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for each in fields(kind):
        has_default = each.default is not MISSING or each.default_factory is not MISSING
        bounded = FIELDS.get((kind, each.name))
        (optional if has_default else needed)[each.name] = of_type(hints[each.name]) if bounded is None else bounded
    return st.fixed_dictionaries(needed, optional=optional).map(_only_one_body(kind)).map(lambda given: kind(**given))


def of_type(hint: Any) -> st.SearchStrategy[Any]:
    """Give values of a field's type."""
    if hint in _SCALARS:
        return _SCALARS[hint]
    if is_dataclass(hint) and isinstance(hint, type):
        return any_of(hint)
    if get_origin(hint) is Outcome:
        # Errors are equal to themselves alone: tests of the codec carry them.
        return of_type(get_args(hint)[0]).map(lambda result: Outcome(ok=True, result=result))
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    return _of_generic(get_origin(hint), get_args(hint))


def _of_generic(origin: Any, inner: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    if origin in (Union, types.UnionType):
        # A body that was put before comes back as its bytes, and errors are equal to themselves alone: no round trips.
        return st.one_of(*(of_type(each) for each in inner if each not in (Artifact, GaiaError)))
    if origin is tuple and inner[1:] == (Ellipsis,):
        return st.lists(of_type(inner[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(of_type, inner))
    assert issubclass(origin, Mapping), origin
    return st.dictionaries(of_type(inner[0]), of_type(inner[1]), max_size=3)


_SCALARS: Final[dict[Any, st.SearchStrategy[Any]]] = {
    str: TEXT,
    Text: TEXT,
    bytes: st.binary(max_size=20),
    int: st.integers(-(2**63), 2**63),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    types.NoneType: st.none(),
    Any: JSON,
}


def _only_one_body(kind: type[Any]) -> Any:
    """Leave one of the fields that exclude each other."""
    rivals = {api.Request: ("json", "data", "body"), browser.Capture: ("url", "html")}.get(kind, ())

    def choose(given: dict[str, Any]) -> dict[str, Any]:
        kept = next((name for name in rivals if given.get(name) is not None), None)
        chosen = {name: value for name, value in given.items() if name == kept or name not in rivals}
        if kind is files.Stream:
            return {"path": "data:x", **chosen}
        return chosen if kept is not None or kind is not browser.Capture else chosen | {"html": "<p>"}

    return choose
