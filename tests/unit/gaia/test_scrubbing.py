"""Striking secrets from texts."""

import base64
import json
import re
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaia.scrubbing import MASK, Scrubber, scrub, sounds_secret, suspects

SECRETS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="*"), min_size=8, max_size=40)
SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "quoted": repr,
    "ascii": ascii,
    "bytes": lambda text: repr(text.encode()),
    "json": json.dumps,
    "json in unicode": lambda text: json.dumps(text, ensure_ascii=False),
    "url": lambda text: quote(text, safe=""),
    "path": quote,
    "form": quote_plus,
    "lower-case url": lambda text: re.sub("%..", lambda found: found[0].lower(), quote(text, safe="")),
    "between": lambda text: f"before {text} after",
    "twice": lambda text: f"{text}{text}",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@given(secret=SECRETS, others=st.lists(SECRETS, max_size=3))
def test_a_known_secret_is_struck_in_every_spelling(spelling: str, secret: str, others: list[str]) -> None:
    spelled = SPELLINGS[spelling](secret)
    found = Scrubber([secret, *others])(f"could not log in with {spelled}!")
    assert secret not in found
    assert quote(secret, safe="") not in found
    assert repr(secret)[1:-1] not in found


@given(secret=SECRETS)
def test_a_secret_that_begins_another_leaves_no_rest_of_it(secret: str) -> None:
    longer = secret + "-and-more"
    assert Scrubber([secret, longer])(longer) == MASK


@pytest.mark.parametrize(
    "secret", ["\ud800\udc00 lone \ud800", "a\0b\nc\td", "'\"\\", "ünïcödé pässwörd", "a" * 10_000]
)
def test_odd_secrets_are_struck(secret: str) -> None:
    assert Scrubber([secret])(f"[{secret}] {secret!r}") == f"[{MASK}] " + repr(secret).replace(repr(secret)[1:-1], MASK)


ORDINARY = """the a file was not found at /srv/data/x.json: 404 127.0.0.1:6379 (os error 2) basic information about
    Digest algorithms Bearer of news http://host.example/a/b?q=1&page=2#top mail me@example.org 12:30 x=1 {'a': 'b'}
    "quoted" key monkey author's passage keyboard 3.5 s -> <html> [1, 2] C:\\temp 50% a@b ünïcödé negotiate terms"""
SECRET_NAMES = """authorization Proxy-Authorization X-Auth-Token cookie Set-Cookie X-Api-Key apikey api_key key password
    passwd pwd PGPASSWORD MYSQL_PWD DB_PASS pass passphrase passcode client_secret private_key X-Amz-Signature sig sid
    PHPSESSID jsessionid access_token refresh-token csrftoken jwt otp AWS_SECRET_ACCESS_KEY AccountKey credential
    client_assertion --token --password"""
OTHER_NAMES = """accept content-type Host User-Agent page q id name monkey keyboard passenger sidebar signal pinned"""

WORDS = st.sampled_from(ORDINARY.split())


@given(words=st.lists(WORDS, max_size=30), gap=st.sampled_from([" ", "  ", "\n", "\t"]))
def test_ordinary_text_stays_as_it_is(words: list[str], gap: str) -> None:
    text = gap.join(words)
    assert scrub(text) == text
    assert Scrubber(["a-secret-that-is-not-there"])(text) == text


LETTERS = st.text(st.characters(exclude_characters="@:=?&;#"), max_size=200)


@given(text=LETTERS)
def test_text_without_any_sign_of_a_pattern_stays_as_it_is(text: str) -> None:
    assert scrub(text) == text


@given(text=st.text())
def test_scrubbing_twice_changes_nothing_more(text: str) -> None:
    once = scrub(text)
    assert scrub(once) == once


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abcdefgh", "Authorization: ***"),
        ("authorization: basic dXNlcjpwYXNz", "authorization: ***"),
        ("{'Authorization': 'Bearer abc def', 'Accept': '*/*'}", "{'Authorization': ***, 'Accept': '*/*'}"),
        ("sent Basic dXNlcjpwYXNz twice", "sent Basic *** twice"),
        ("sent Bearer eyJhbGciOi.J9.abc-_~ twice", "sent Bearer *** twice"),
        ('{"password": "a\\"b c", "x": 1}', '{"password": ***, "x": 1}'),
        (r'"{\"client_secret\": \"abc def\", \"x\": 1}"', r'"{\"client_secret\": ***\", \"x\": 1}"'),
        ("Cookie: a=1; b=2\nHost: h", "Cookie: ***\nHost: h"),
        ("set-cookie: sid=1; Path=/", "set-cookie: ***"),
        ("http://u:p@ss@h/x?token=abc&y=1#access_token=zz", "http://***@h/x?token=***&y=1#access_token=***"),
        ("http://h/?a=1&X-Amz-Signature=0f&sig=0f&%73ig=0f", "http://h/?a=1&X-Amz-Signature=***&sig=***&%73ig=***"),
        ("http://h/?user[token]=abc", "http://h/?user[token]=***"),
        ("redis://:pw@h:6379/0 refused", "redis://***@h:6379/0 refused"),
        ("https://justatoken@h/", "https://***@h/"),
        ("password=hunter2, user=me", "password=***, user=me"),
        ("--db-password hunter2 api_key=k", "--db-password hunter2 api_key=***"),
        ("API-KEY : 'a b'", "API-KEY : ***"),
    ],
)
def test_what_looks_like_a_secret_is_struck(text: str, expected: str) -> None:
    assert scrub(text) == expected


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_names_that_sound_secret(name: str) -> None:
    assert sounds_secret(name)


@pytest.mark.parametrize("name", OTHER_NAMES.split())
def test_names_that_do_not(name: str) -> None:
    assert not sounds_secret(name)


HOSTILE = {
    "letters": "a" * 10**6,
    "keywords": "token" * 10**5,
    "assignments": "token=" * 10**5,
    "open quotes": 'token="' * 10**5,
    "mixed quotes": "token='\"" * 10**5,
    "escaped quotes": 'token="\\"' * 10**5,
    "backslashes": "token" + "\\" * 10**6,
    "assigned backslashes": "token=\\" * 10**5,
    "blanks": "password" + " " * 10**6,
    "schemes": "://" * 10**5,
    "user-info": "://" + "a" * 10**6,
    "bearers": "bearer " * 10**5,
    "a long bearer": "bearer " + "a" * 10**6,
    "parameters": "?a" * 10**5,
    "cookies": "cookie:" * 10**5,
    "dots": "a.b-" * 10**5,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_text_takes_no_more_than_its_length(text: str) -> None:
    scrub(text)
    list(suspects(text))


def test_many_known_secrets_are_struck_from_a_long_text() -> None:
    secrets = [f"secret-number-{number}-" for number in range(500)]
    found = Scrubber(secrets)(" ".join(secrets) * 20)
    assert "secret-number" not in found


def test_base64_of_a_user_and_password_betrays_itself_beside_its_scheme() -> None:
    assert "dXNl" not in scrub("Basic " + base64.b64encode(b"user:a long password").decode())
