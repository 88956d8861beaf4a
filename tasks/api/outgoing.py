"""Requests as they are sent: the first one of a call, and those that follow redirects."""

import json
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode, urljoin

from requests.cookies import RequestsCookieJar, get_cookie_header
from requests.exceptions import RequestException
from requests.models import PreparedRequest
from requests.utils import get_auth_from_url
from urllib3.connection import port_by_scheme
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from gaia.codec import content
from gaia.contracts import api
from gaia.errors import BadReply
from gaia.scrubbing import sounds_secret

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

# Whoever says where a message ends could hide a second one behind the first, and `Upgrade` leaves HTTP.
_OURS_ALONE: Final = frozenset({"content-length", "transfer-encoding", "upgrade", "expect"})

_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
"""Say `Content-Length: 0` when they bring none (RFC 9110 section 8.6)."""

# URLs that requests leaves as they are, so they need not pass through it; a test holds it to that.
_PLAIN: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>(?:/(?!\.)[A-Za-z0-9._~!$&'()*+,;=:@-]*)*)(?P<query>\?[A-Za-z0-9._~!$&'()*+,;=:@/?-]+)?"
)


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port (RFC 6454). `host` is ASCII, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True)
class Address:
    """A URL in the one reading by which it is judged, dialled and sent. `target` is what a server is asked for."""

    url: str
    origin: Origin
    target: str

    @property
    def authority(self) -> str:
        """Give host and port as in a `Host` header: the port unless it is the scheme's own."""
        host = f"[{self.origin.host}]" if ":" in self.origin.host else self.origin.host
        return host if self.origin.port == port_by_scheme[self.origin.scheme] else f"{host}:{self.origin.port}"


@dataclass(frozen=True)
class Outgoing:
    """One request on the wire. Header names are as given; no two differ in case alone."""

    method: str
    address: Address
    headers: dict[str, str]
    body: bytes | None

    @property
    def host(self) -> str:
        """Give the host that is asked."""
        return self.address.origin.host


def first(call: api.Request, user_agent: str) -> Outgoing:
    """Encode a call. User-info of the URL becomes basic authorization.

    Raises:
        InvalidCall: if it cannot be sent as HTTP.
    """
    fields = {"User-Agent": user_agent, "Accept": "*/*", "Accept-Encoding": "gzip, deflate"}
    body, kind = _body(call)
    if kind:
        fields["Content-Type"] = kind
    if body is None and call.method in _WITH_BODY:
        body = b""
    credentials = _credentials(call)
    if call.headers:
        fields = _merged(call, fields)
    if credentials is not None:
        _drop(fields, lambda name: name == "authorization")
        fields["Authorization"] = credentials
    return Outgoing(call.method, _address(call), fields, body)


def following(sent: Outgoing, status: int, location: str) -> Outgoing:
    """Give the request that a redirect asks for (RFC 9110 section 15.4).

    Credentials stay with their origin, and so does a `Host` of the caller's own.

    Raises:
        BadReply: if it leads to no http or https URL.
    """
    here = sent.address
    try:
        target = parse_url(urljoin(here.url, _text(location)))
        if target.scheme not in port_by_scheme or not target.host:
            raise BadReply(sent.host, f"it redirects to a {target.scheme} URL")
        there = _prepared(target._replace(auth=None).url)
    except (RequestException, LocationParseError, ValueError):
        raise BadReply(sent.host, "it redirects to a malformed URL") from None
    hop = replace(sent, address=there, headers=dict(sent.headers))
    if there.origin != here.origin:
        _drop(hop.headers, lambda name: name == "host" or sounds_secret(name))
    if status == HTTPStatus.SEE_OTHER or (sent.method == "POST" and status in {301, 302}):
        _drop(hop.headers, lambda name: name.startswith("content-"))
        return replace(hop, method="GET" if sent.method != "HEAD" else "HEAD", body=None)
    return hop


def with_cookies(sent: Outgoing, jar: RequestsCookieJar) -> dict[str, str]:
    """Give the header fields, with the cookies that servers set on the way besides the caller's own."""
    if not len(jar):
        return sent.headers
    plain = plain_request(sent)
    own = plain.headers.pop("Cookie", None)
    gained = get_cookie_header(jar, plain)  # type: ignore[no-untyped-call]  # of requests, without types
    cookies = [str(each) for each in (own, gained) if each]
    fields = {name: value for name, value in sent.headers.items() if name.lower() != "cookie"}
    return fields | ({"Cookie": "; ".join(cookies)} if cookies else {})


def plain_request(sent: Outgoing) -> PreparedRequest:
    """Give the same as requests knows it: whom its cookies belong to."""
    request = PreparedRequest()
    request.prepare(method=sent.method, url=sent.address.url, headers=sent.headers)
    return request


def _address(call: api.Request) -> Address:
    found = None if call.params else _PLAIN.fullmatch(call.url)
    if found is not None:
        scheme, host, port, path, query = found.group("scheme", "host", "port", "path", "query")
        origin = Origin(scheme, host, int(port) if port else port_by_scheme[scheme])
        if path:
            return Address(call.url, origin, path + (query or ""))
        target = "/" + (query or "")
        return Address(call.url[: found.start("query")] + target if query else call.url + "/", origin, target)
    try:
        return _prepared(parse_url(call.url)._replace(auth=None).url, call.params)
    except (RequestException, LocationParseError, UnicodeError):
        raise call.refuse("url", "cannot be sent as HTTP") from None


def _prepared(url: str, params: object = None) -> Address:
    request = PreparedRequest()
    request.prepare_url(url, params)
    parsed = parse_url(request.url or "")
    scheme = parsed.scheme or ""
    origin = Origin(scheme, (parsed.host or "").strip("[]"), parsed.port or port_by_scheme[scheme])
    # A fragment is the client's own (RFC 9110 section 7.1).
    return Address(request.url or "", origin, parsed.request_uri)


def _body(call: api.Request) -> tuple[bytes | None, str | None]:
    """Give the body and its type."""
    if call.body is not None:
        return content(call.body), None
    if call.json is not None:
        return json.dumps(call.json, allow_nan=False).encode(), "application/json"
    if call.data is not None:
        return urlencode(dict(call.data)).encode(), "application/x-www-form-urlencoded"
    return None, None


def _merged(call: api.Request, fields: dict[str, str]) -> dict[str, str]:
    known = {name.lower(): name for name in fields}
    for name, value in call.headers.items():
        lower = name.lower()
        if lower in _OURS_ALONE:
            raise call.refuse("headers", f"{name!r} is set by Gaia alone")
        if not _is_latin(value):
            raise call.refuse("headers", f"{name!r} must be Latin-1 text")
        if value[:1] in {" ", "\t"}:
            raise call.refuse("headers", f"{name!r} must not start with a blank")
        if lower in known:
            del fields[known[lower]]
        fields[name], known[lower] = value, name
    return fields


def _credentials(call: api.Request) -> str | None:
    user, password = call.auth or (get_auth_from_url(call.url) if "@" in call.url else ("", ""))
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode() if user or password else None


def _drop(fields: dict[str, str], matches: Callable[[str], bool]) -> None:
    for name in [each for each in fields if matches(each.lower())]:
        del fields[name]


def _is_latin(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


def _text(location: str) -> str:
    """Read a header value as UTF-8 if it is: readers of HTTP take every byte for a Latin-1 character."""
    try:
        return location.encode("latin-1").decode()
    except UnicodeError:
        return location
