"""Requests as they are sent: the first one of a call, and those that follow redirects."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final
from urllib.parse import urljoin

from requests.cookies import RequestsCookieJar, get_cookie_header
from requests.exceptions import InvalidHeader, RequestException
from requests.models import PreparedRequest
from requests.structures import CaseInsensitiveDict
from requests.utils import get_auth_from_url
from urllib3.connection import port_by_scheme
from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from gaia.codec import content
from gaia.contracts import api
from gaia.errors import BadReply
from gaia.scrubbing import sounds_secret
from tasks.api.connections import Origin

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

# Whoever says where a message ends could hide a second one behind the first, and `Upgrade` leaves HTTP.
_OURS_ALONE: Final = frozenset({"content-length", "transfer-encoding", "upgrade"})


def first(call: api.Request, user_agent: str) -> PreparedRequest:
    """Encode a call. User-info of the URL becomes basic authorization.

    Raises:
        InvalidCall: if it cannot be sent as HTTP.
    """
    request = PreparedRequest()
    try:
        request.prepare(
            method=call.method,
            url=_bare(call.url),
            headers=_headers(call, user_agent),
            params=call.params,
            data=call.data if call.body is None else content(call.body),
            json=call.json,
            auth=_credentials(call),
        )
    except InvalidHeader:
        raise call.refuse("headers", "must not start with a blank") from None
    except (RequestException, LocationParseError, UnicodeError):
        raise call.refuse("url", "cannot be sent as HTTP") from None
    return request


def following(request: PreparedRequest, status: int, location: str) -> PreparedRequest:
    """Give the request that a redirect asks for (RFC 9110 section 15.4).

    Credentials stay with their origin, and so does a `Host` of the caller's own.

    Raises:
        BadReply: if it leads to no http or https URL.
    """
    here = address(request)
    hop = request.copy()
    try:
        target = parse_url(urljoin(here.url, _text(location)))
        if target.scheme not in port_by_scheme or not target.host:
            raise BadReply(here.host or "", f"it redirects to a {target.scheme} URL")
        hop.prepare_url(_bare(target.url), None)
    except (RequestException, LocationParseError, ValueError):
        raise BadReply(here.host or "", "it redirects to a malformed URL") from None
    if origin(address(hop)) != origin(here):
        _drop(hop, lambda name: name == "host" or sounds_secret(name))
    changed = "GET" if request.method != "HEAD" else "HEAD"
    if status == HTTPStatus.SEE_OTHER or (request.method == "POST" and status in {301, 302}):
        hop.method, hop.body = changed, None
        _drop(hop, lambda name: name.startswith("content-"))
    return hop


def address(request: PreparedRequest) -> Url:
    """Give the parsed URL: the one reading by which a request is judged, dialled and sent."""
    return parse_url(request.url or "")


def origin(url: Url) -> Origin:
    """Give the origin of a URL."""
    scheme = url.scheme or ""
    return Origin(scheme, (url.host or "").strip("[]"), url.port or port_by_scheme[scheme])


def headers(request: PreparedRequest, jar: RequestsCookieJar) -> dict[str, str]:
    """Give the header fields, with the cookies that servers set on the way besides the caller's own."""
    fields = {name: value if isinstance(value, str) else value.decode() for name, value in request.headers.items()}
    if not len(jar):
        return fields
    plain = request.copy()
    _drop(plain, lambda name: name == "cookie")
    gained = get_cookie_header(jar, plain)  # type: ignore[no-untyped-call]  # of requests, without types
    cookies = [each for each in (request.headers.get("Cookie"), gained) if each]
    fields = {name: value for name, value in fields.items() if name.lower() != "cookie"}
    return fields | ({"Cookie": "; ".join(map(str, cookies))} if cookies else {})


def _headers(call: api.Request, user_agent: str) -> CaseInsensitiveDict[str]:
    fields = CaseInsensitiveDict({"User-Agent": user_agent, "Accept": "*/*", "Accept-Encoding": "gzip, deflate"})
    for name, value in call.headers.items():
        call.require("headers", f"{name!r} is set by Gaia alone", holds=name.lower() not in _OURS_ALONE)
        call.require("headers", f"{name!r} must be Latin-1 text", holds=_is_latin(value))
        fields[name] = value
    return fields


def _credentials(call: api.Request) -> tuple[bytes, bytes] | None:
    user, password = call.auth or get_auth_from_url(call.url)
    return (user.encode(), password.encode()) if user or password else None


def _bare(url: str) -> str:
    """Give the URL without user-info."""
    return parse_url(url)._replace(auth=None).url


def _drop(request: PreparedRequest, matches: Callable[[str], bool]) -> None:
    for name in [each for each in request.headers if matches(each.lower())]:
        del request.headers[name]


def _is_latin(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


def _text(location: str) -> str:
    """Read a header value as UTF-8 if it is: http.client takes every byte for a Latin-1 character."""
    try:
        return location.encode("latin-1").decode()
    except UnicodeError:
        return location
