"""A DNS server is an address in its one spelling, with a port or without."""

import pytest

from config.nameservers import Server, server


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353)),
        ("2001:DB8::1", ("2001:db8::1", 53)),
        ("[2001:db8::1]", ("2001:db8::1", 53)),
        ("[::1]:65535", ("::1", 65535)),
        ("fe80::1%eth0", ("fe80::1%eth0", 53)),
    ],
)
def test_an_address_is_read_with_its_port(text: str, found: Server) -> None:
    assert server(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "a.example", "127.1", "0x7f.1", "2130706433", "010.0.0.1", "192.0.2.256", "192.0.2.1:", "192.0.2.1:0",
        "192.0.2.1:65536", "192.0.2.1:5_3", "192.0.2.1:\u0665", "[::1", "[::1]53", "::0001", "192.0.2.1%eth0",
        "fe80::1%", "192.0.2.1\0", "192.0.2.1 ", "\ud800",
    ],
)  # fmt: skip
def test_what_another_resolver_might_read_otherwise_is_no_server(text: str) -> None:
    assert server(text) is None
