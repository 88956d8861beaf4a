"""What may be shown of a call."""

import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaia import redaction
from gaia.contracts import api, browser, files, process
from gaia.contracts.base import CALLS, Call, Result, contract, secret
from gaia.redaction import Scrubber, redact, secrets_of, secrets_of_url, show, show_json, visible_json
from tests.support import contracts

TOKENS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", min_size=8, max_size=30).map(
    lambda text: f"zq{text}"
)
"""Secrets of letters that stand in no contract."""
ANYTHING = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="*"), min_size=8).map(
    lambda text: f"zq{text}"
)

HIDDEN: dict[str, Callable[[str], Call[Any]]] = {
    "authorization": lambda s: api.Request("http://h/", headers={"Authorization": f"Bearer {s}"}),
    "a header of an unusual name": lambda s: api.Request("http://h/", headers={"X-Custom-Token": s}),
    "a cookie": lambda s: api.Request("http://h/", headers={"cookie": f"theme=dark; id={s}; path=/"}),
    "a URL in a header": lambda s: api.Request("http://h/", headers={"Referer": f"https://me:{s}@h/"}),
    "a token in a header's URL": lambda s: api.Request(
        "http://h/", headers={"Referer": f"https://h/?access_token={s}"}
    ),
    "auth": lambda s: api.Request("http://h/", auth=("me", s)),
    "a user in auth": lambda s: api.Request("http://h/", auth=(s, "password")),
    "user-info": lambda s: api.Request(f"http://me:{s}@h/"),
    "a user that is a token": lambda s: api.Request(f"http://{s}@h/"),
    "a query token": lambda s: api.Request(f"http://h/?page=1&token={s}&x=1"),
    "a fragment": lambda s: api.Request(f"http://h/#access_token={s}"),
    "a path parameter": lambda s: api.Request(f"http://h/a;jsessionid={s}?x"),
    "params": lambda s: api.Request("http://h/", params={"api_key": s, "page": "1"}),
    "json": lambda s: api.Request("http://h/", json={"user": {"password": s}, "list": [{"token": [s]}]}),
    "data": lambda s: api.Request("http://h/", data={"password": s}),
    "a page's URL": lambda s: browser.Capture(url=f"http://me:{s}@h/?sig={s}"),
    "an option and its value": lambda s: process.Run(("/bin/x", "--password", s)),
    "an option with its value": lambda s: process.Run(("/bin/x", f"--token={s}")),
    "a property": lambda s: process.Run(("/bin/x", f"-Ddb.password={s}")),
    "an assignment": lambda s: process.Run(("/bin/env", f"API_KEY={s}", "/bin/x")),
    "a header argument": lambda s: process.Run(("/bin/curl", "-H", f"Authorization: Bearer {s}")),
    "a URL argument": lambda s: process.Run(("/bin/git", "clone", f"https://me:{s}@h/")),
    "a URL in an option": lambda s: process.Run(("/bin/x", f"--url=https://me:{s}@h/?token={s}")),
    "a JSON argument": lambda s: process.Run(("/bin/x", json.dumps({"password": s}))),
    "a script": lambda s: process.Run(("/bin/sh", "-c", f"mysql --password={s} -e 'select 1'")),
    "env": lambda s: process.Run(("/bin/x",), env={"LANG": s}),
}


@pytest.mark.parametrize("place", HIDDEN)
@given(token=TOKENS)
def test_a_secret_is_in_no_repr_and_no_text_of_the_json(place: str, token: str) -> None:
    call = HIDDEN[place](token)
    assert token not in repr(call)
    assert token not in show_json(type(call), json.loads(json.dumps(call.fields_json())))


@pytest.mark.parametrize("place", HIDDEN)
@given(token=TOKENS)
def test_a_secret_is_struck_from_errors_whoever_reads_the_call(place: str, token: str) -> None:
    call = HIDDEN[place](token)
    text = f"could not use {token!r} at https://me:{quote(token)}@h/: {token}"
    for given_as in (call, call.fields_json()):
        assert token not in Scrubber(secrets_of(type(call), given_as))(text)


@given(password=ANYTHING)
def test_an_encoded_password_of_a_url_is_struck_plain_and_as_basic_authorization(password: str) -> None:
    call = api.Request(f"http://me:{quote(password, safe='')}@h/")
    basic = base64.b64encode(f"me:{password}".encode()).decode()
    found = Scrubber(secrets_of(api.Request, call))(f"{password} / {password!r} / {basic} / {quote(password, safe='')}")
    for secret_form in (password, basic, quote(password, safe="")):
        assert secret_form not in found


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_basic_authorization_is_struck_in_either_encoding(encoding: str) -> None:
    call = api.Request("http://h/", auth=("mé", "pässword"))
    sent = base64.b64encode("mé:pässword".encode(encoding)).decode()
    assert sent not in Scrubber(secrets_of(api.Request, call))(f"Basic {sent}; {sent}")


@given(token=TOKENS.map(lambda text: "-" + text))
def test_a_secret_argument_may_begin_with_a_dash(token: str) -> None:
    call = process.Run(("/bin/x", "--token", token))
    assert token not in repr(call)
    assert token in secrets_of(process.Run, call)


def test_the_option_after_a_flag_that_sounds_secret_is_no_secret() -> None:
    call = process.Run(("/bin/x", "--no-auth", "--verbose", "--use-token", "-v", "file"))
    assert repr(call) == "Run(argv=['/bin/x', '--no-auth', '--verbose', '--use-token', '-v', 'file'])"
    assert not secrets_of(process.Run, call)


# --- what shows


def test_what_is_no_secret_shows() -> None:
    call = api.Request("http://h/a?page=2&q=x#top", method="PUT", headers={"Accept": "*/*"}, body=b"abc")
    assert repr(call) == (
        "Request(url='http://h/a?page=2&q=x#top', method='PUT', headers={'Accept': '*/*'}, body=<3 bytes>)"
    )


def test_names_show_and_values_do_not() -> None:
    call = api.Request("https://me:pw@h/?token=1&x=2", headers={"Cookie": "a=1", "X": "1"}, auth=("me", "pw"))
    assert repr(call) == (
        "Request(url='https://***@h/?token=***&x=2', headers={'Cookie': '***', 'X': '1'}, auth='***')"
    )
    assert repr(process.Run(("/bin/x",), env={"A": "1"})) == "Run(argv=['/bin/x'], env={'A': '***'})"


@pytest.mark.parametrize(
    ("value", "shown"),
    [({"a": 1}, "<dict>"), (["a"], "<list>"), ("text", "<4 characters>"), (b"", "<0 bytes>"), (5, "<int>")],
)
def test_of_a_body_its_size_shows(value: object, shown: str) -> None:
    assert repr(redact(value, "body")) == shown


def test_a_result_is_shown_redacted_too() -> None:
    found = api.Response(200, {"set-cookie": "id=1", "server": "x"}, b"abc", "http://u:p@h/", 0.1)
    assert repr(found) == (
        "Response(status=200, headers={'set-cookie': '***', 'server': 'x'}, body=<3 bytes>, url='http://***@h/', "
        "elapsed_s=0.1)"
    )


def test_a_long_value_is_cut() -> None:
    assert len(repr(files.Read("data:" + "x" * 4000))) < 300


@pytest.mark.parametrize(
    "url", ["http://h:99999999/", "http://me:pass@[::1", "redis://:pa/ss@h", "redis://:12/ss@h", "http://:pw@/x"]
)
def test_a_url_whose_parts_cannot_be_told_is_hidden_and_a_secret_as_a_whole(url: str) -> None:
    assert redact(url, "url") == "***"
    assert secrets_of_url(url) == {url}


@pytest.mark.parametrize("url", ["http://h/", "/only/a/path?x=1", "", "h", "mailto:me@h", "http://[::1]:80/"])
def test_a_url_without_secrets_shows_whole(url: str) -> None:
    assert redact(url, "url") == url
    assert not secrets_of_url(url)


# --- foreign messages


@given(given_json=contracts.JSON)
@pytest.mark.parametrize("kind", contracts.calls(), ids=lambda kind: kind.__qualname__)
def test_json_of_any_shape_is_shown_and_searched_without_failing(kind: type[Call[Any]], given_json: Any) -> None:
    names = [*kind.__dataclass_fields__, "unknown"]  # type: ignore[attr-defined]  # calls are dataclasses
    message = dict.fromkeys(names, given_json)
    show_json(kind, message)
    Scrubber(secrets_of(kind, message))("text")


def test_a_message_nested_beyond_the_stack_is_shown_and_searched() -> None:
    deep: Any = "x"
    for _ in range(50_000):
        deep = [{"a": deep}]
    message = dict.fromkeys(["url", "headers", "json", "auth", "method", "timeout_s"], deep)
    assert "method': <list>" in show_json(api.Request, message)
    secrets_of(api.Request, message)


def test_an_unknown_field_is_masked() -> None:
    assert visible_json(files.Read, {"path": "data:x", "pass": "s", "nested": {"a": 1}}) == {
        "path": "data:x",
        "pass": "***",
        "nested": "***",
    }


@pytest.mark.parametrize("value", ["hunter22", ["hunter22"], {"a": ["hunter22"]}, [{"name": "hunter22"}]])
@pytest.mark.parametrize("name", ["auth", "argv", "env", "headers"])
def test_a_marked_field_of_the_wrong_type_shows_nothing(name: str, value: object) -> None:
    kind = process.Run if name in {"argv", "env"} else api.Request
    if name == "argv" and isinstance(value, list):
        value = {"a": value}  # a list is the right type: its words show
    assert "hunter22" not in show_json(kind, {name: value})


def test_a_lone_surrogate_is_no_obstacle() -> None:
    call = {"url": "http://u:\ud800pw@h/", "auth": ["\udcff", "pass\ud800word"], "headers": {"cookie": "\ud800"}}
    assert "pass\ud800word" not in Scrubber(secrets_of(api.Request, call))("pass\ud800word")
    show_json(api.Request, call)


# --- calls within calls


@contract
class Many(Call[Result], operation="test_redaction.many"):
    calls: tuple[api.Request, ...]
    first: api.Request | None = None
    password: str | None = secret("all", default=None)


CALLS.pop("test_redaction.many")


def test_the_secrets_of_calls_within_a_call_are_hidden_and_known() -> None:
    inner = api.Request("http://h/?token=hunter22", auth=("me", "hunter33"))
    many = Many((inner, inner), api.Request("http://h/", headers={"cookie": "hunter44"}), "hunter55")
    sent = many.fields_json()
    for text in (repr(many), show(many), show_json(Many, sent)):
        assert "hunter" not in text
        assert "http://h/" in text
    for given_as in (many, sent):
        assert {f"hunter{number}" for number in (22, 33, 44, 55)} <= secrets_of(Many, given_as)


def test_calls_within_a_call_of_the_wrong_shape_are_masked() -> None:
    for wrong in ("hunter22", [["hunter22"]], {"url": ["hunter22"]}, 5):
        assert "hunter" not in show_json(Many, {"calls": wrong, "first": wrong})
        secrets_of(Many, {"calls": wrong, "first": wrong})


def test_a_mark_that_does_not_exist_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        redact("x", "nothing")


def test_the_words_of_scrubbing_are_at_hand_here() -> None:
    assert set(redaction.__all__) <= set(dir(redaction))


def test_of_a_long_batch_no_more_is_redacted_than_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tuple(api.Request(f"http://h/{number}?token=geheimnis", tenant="t") for number in range(1000))
    batch = api.RequestMany(calls)
    message = json.loads(json.dumps(batch.fields_json()))
    asked: list[str] = []
    split = redaction._split
    monkeypatch.setattr(redaction, "_split", lambda url: (asked.append(url), split(url))[1])
    for text in (show(batch), show_json(api.RequestMany, message)):
        assert text.count("http://h/") >= 2
        assert "geheimnis" not in text
        assert len(text) < 400
    assert len(asked) < 200


@pytest.mark.parametrize("items", [(), ("a",), ("a", 1), [], ["a"], ["a", 1]])
def test_a_short_list_shows_as_it_is(items: object) -> None:
    assert redaction._brief(items) == repr(items)


def test_user_info_of_a_url_within_a_parameter_is_hidden_and_known() -> None:
    inner = quote("https://me:geheim42@host/", safe="")
    url = f"http://a.example/?next={inner}&plain=1"
    shown = redaction.redact(url, "url")
    assert "geheim42" not in str(shown)
    assert "plain=1" in str(shown)
    assert "geheim42" in redaction.secrets_of_url(url)
    assert "geheim42" not in redaction.scrub(f"could not get {url}")
