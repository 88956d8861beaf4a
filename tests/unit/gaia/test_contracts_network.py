"""Names, bytes, leases and endpoints: what no worker is asked for."""

from typing import Any

import pytest

from gaia.contracts import network
from gaia.contracts.network import NAME_LIMIT, Resolve
from gaia.errors import InvalidCall


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a\nb", "a\rb", "\0", "a" * (NAME_LIMIT + 1), "\ud800", None, b"a"])
def test_a_name_is_no_url_and_no_line(name: Any) -> None:
    with pytest.raises(InvalidCall) as caught:
        Resolve(name)
    assert caught.value.field == "name"


@pytest.mark.parametrize("type_", ["a", "ANY", "AXFR", "", None, 1])
def test_a_type_is_one_of_the_list(type_: Any) -> None:
    with pytest.raises(InvalidCall) as caught:
        Resolve("a.example", type_).fields_json()
    assert caught.value.field == "type"


@pytest.mark.parametrize(
    ("call", "given", "field"),
    [
        (network.Resolve, {"name": "a.test", "servers": ("192.0.2.1",) * 9}, "servers"),
        (network.Resolve, {"name": "a.test", "servers": ("",)}, "servers"),
        (network.ResolveMany, {"names": ("a.test",) * 10_001}, "names"),
        (network.ResolveMany, {"names": ("a.test",), "timeout_s": 0}, "timeout_s"),
        (network.Throttle, {"size_bytes": -1}, "size_bytes"),
        (network.Throttle, {"size_bytes": 0}, "size_bytes"),
        (network.Throttle, {"size_bytes": 2**63}, "size_bytes"),
        (network.Throttle, {"size_bytes": 1, "host": "A.test"}, "host"),
        (network.Throttle, {"size_bytes": 1, "host": "global"}, "host"),
        (network.Throttle, {"size_bytes": 1, "job": "two words"}, "job"),
        (network.AcquireConnection, {"host": "global"}, "host"),
        (network.AcquireConnection, {"host": "pool:connections"}, "host"),
        (network.AcquireConnection, {"host": "a.test", "ttl_s": 0}, "ttl_s"),
        (network.ReleaseConnection, {"lease": "x"}, "lease"),
        (network.ReleaseConnection, {"lease": "0123456789abcdef@pool:connections"}, "lease"),
        (network.ReleaseConnection, {"lease": "0123456789abcdef@a.test@b.test"}, "lease"),
        (network.ProbeTcp, {"host": "a.test", "port": 0}, "port"),
        (network.ProbeTcp, {"host": "a.test", "port": 65536}, "port"),
        (network.ProbeTls, {"host": "a.test", "alpn": ("",)}, "alpn"),
        (network.ProbeTls, {"host": "a.test", "server_name": "a b"}, "server_name"),
        (network.ProbeHttp, {"url": "ftp://a.test/"}, "url"),
        (network.ProbeHttp, {"url": "http://user:pw@a.test/"}, "url"),
        (network.ProbeHttp, {"url": "http://a.test/", "headers": {"x": "a\r\nb"}}, "headers"),
        (network.ProbeHttp, {"url": "http://a.test/", "headers": {"Content-Length": "5"}}, "headers"),
        (network.Ping, {"host": "a.test", "count": 21}, "count"),
        (network.Ping, {"host": "", "count": 1}, "host"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(call: Any, given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidCall) as caught:
        call(**given).fields_json()
    assert caught.value.field == field


def test_a_lease_names_its_host() -> None:
    assert network.ReleaseConnection("0123456789abcdef@2001:db8::1").parts() == ("0123456789abcdef", "2001:db8::1")
