"""What may be dialled."""

from ipaddress import ip_address

import pytest

from gaia.errors import EgressDenied
from tasks.egress.judge import Judge, classify

PUBLIC = ["93.184.216.34", "8.8.8.8", "1.1.1.1", "172.32.0.1", "100.63.255.255", "2606:4700:4700::1111", "2a00:1450::1"]

DENIED = {
    "0.0.0.0": "this network",  # noqa: S104 - nothing is bound
    "0.1.2.3": "this network",
    "10.0.0.1": "private",
    "100.64.0.1": "carrier-grade NAT",
    "100.100.100.200": "cloud metadata",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "168.63.129.16": "cloud metadata",
    "169.254.0.1": "link-local",
    "169.254.169.254": "cloud metadata",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.8": "protocol assignments",
    "192.0.2.1": "documentation",
    "192.88.99.1": "6to4 relays",
    "192.168.1.1": "private",
    "198.18.0.1": "benchmarking",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "broadcast",
    "::": "unspecified",
    "::1": "loopback",
    "::127.0.0.1": "IPv4-compatible",
    "::ffff:127.0.0.1": "IPv4-mapped",
    "::ffff:8.8.8.8": "IPv4-mapped",
    "::ffff:0:127.0.0.1": "IPv4-translated",
    "64:ff9b::7f00:1": "NAT64",
    "64:ff9b::808:808": "NAT64",
    "64:ff9b:1::a00:1": "NAT64",
    "100::1": "discard",
    "2001::1": "Teredo",
    "2001:2::1": "benchmarking",
    "2001:10::1": "protocol assignments",
    "2001:db8::1": "documentation",
    "2002:7f00:1::": "6to4",
    "3fff::1": "documentation",
    "5f00::1": "segment routing",
    "4000::1": "reserved",
    "fc00::1": "private",
    "fd00:ec2::254": "cloud metadata",
    "fe80::1": "link-local",
    "fec0::1": "site-local",
    "ff02::1": "multicast",
}


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_passes(address: str) -> None:
    Judge().judge("example.org", address, 443)
    assert classify(ip_address(address)) is None


@pytest.mark.parametrize(("address", "reason"), DENIED.items())
def test_a_special_address_is_refused_with_its_reason(address: str, reason: str) -> None:
    with pytest.raises(EgressDenied) as caught:
        Judge().judge("example.org", address, 443)
    assert caught.value.args == ("example.org", address, reason)


@pytest.mark.parametrize("address", ["fe80::1%eth0", "8.8.8.8%1", "", "example.org", "127.1", "8.8.8.8 "])
def test_what_is_no_plain_address_is_refused(address: str) -> None:
    with pytest.raises(EgressDenied):
        Judge(allow_cidrs=["0.0.0.0/0", "::/0"]).judge("example.org", address, 443)


def test_an_allowed_network_is_reachable() -> None:
    judge = Judge(allow_cidrs=["10.1.0.0/16", "fd00::/8"])
    judge.judge("inner", "10.1.2.3", 80)
    judge.judge("inner", "fd00::1", 80)
    with pytest.raises(EgressDenied):
        judge.judge("inner", "10.2.0.1", 80)


@pytest.mark.parametrize(("entry", "address"), [("127.0.0.1/32:8080", "127.0.0.1"), ("[::1/128]:8080", "::1")])
def test_an_entry_with_a_port_opens_that_port_only(entry: str, address: str) -> None:
    judge = Judge(allow_cidrs=[entry])
    judge.judge("localhost", address, 8080)
    with pytest.raises(EgressDenied):
        judge.judge("localhost", address, 8081)


def test_an_allowed_host_may_have_a_private_address() -> None:
    judge = Judge(allow_hosts=["Inner.Example.org."])
    for address in ("10.0.0.1", "172.16.0.1", "192.168.0.1", "fd12::1"):
        judge.judge("inner.example.ORG.", address, 80)
        with pytest.raises(EgressDenied):
            judge.judge("other.example.org", address, 80)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "::1",
        "0.0.0.0",  # noqa: S104 - nothing is bound
        "169.254.0.1",
        "169.254.169.254",
        "fe80::1",
        "fd00:ec2::254",
        "100.64.0.1",
        "64:ff9b::a00:1",
        "::ffff:10.0.0.1",
    ],
)
def test_an_allowed_host_never_reaches_more_than_private_addresses(address: str) -> None:
    with pytest.raises(EgressDenied):
        Judge(allow_hosts=["inner"]).judge("inner", address, 80)


@pytest.mark.parametrize(
    "address", ["64:ff9b::7f00:1", "64:ff9b:1::a00:1", "::ffff:127.0.0.1", "::127.0.0.1", "2002:a00:1::", "2001::1"]
)
def test_an_allowed_embedding_network_does_not_open_what_it_embeds(address: str) -> None:
    with pytest.raises(EgressDenied):
        Judge(allow_cidrs=["::/0"]).judge("x", address, 80)


def test_an_allowed_nat64_prefix_reaches_public_addresses() -> None:
    Judge(allow_cidrs=["64:ff9b::/96"]).judge("x", "64:ff9b::808:808", 80)


def test_an_allowed_ipv4_address_is_not_reachable_under_its_ipv6_disguise() -> None:
    with pytest.raises(EgressDenied):
        Judge(allow_cidrs=["127.0.0.1/32:8080"]).judge("x", "::ffff:127.0.0.1", 8080)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "10.0.0.5"],  # noqa: S104 - nothing is bound
)
def test_a_forbidden_endpoint_is_refused_whatever_is_allowed(address: str) -> None:
    judge = Judge(["0.0.0.0/0", "::/0"], ["redis"], frozenset({("127.0.0.1", 6379), ("10.0.0.5", 6379)}))
    with pytest.raises(EgressDenied):
        judge.judge("redis", address, 6379)


def test_another_port_of_a_forbidden_endpoint_is_none() -> None:
    Judge(["127.0.0.0/8"], (), frozenset({("127.0.0.1", 6379)})).judge("x", "127.0.0.1", 6380)


def test_a_forbidden_name_is_refused_at_any_address() -> None:
    with pytest.raises(EgressDenied):
        Judge(["10.0.0.0/8"], (), frozenset({("redis", 6379)})).judge("REDIS.", "10.9.9.9", 6379)
