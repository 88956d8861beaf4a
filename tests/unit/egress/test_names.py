"""Spellings of names and addresses."""

import pytest

from tasks.egress import names


@pytest.mark.parametrize(
    ("spelling", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0X7F.1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("0", "0.0.0.0"),  # noqa: S104 - nothing is bound
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("[::FFFF:127.0.0.1]", "::ffff:127.0.0.1"),
        ("::ffff:7f00:1", "::ffff:127.0.0.1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("\uff11\uff12\uff17.0.0.1", "127.0.0.1"),
        ("127\u30020\u30020\u30021", "127.0.0.1"),
        ("\u2460\u2461\u2466.0.0.1", "127.0.0.1"),
    ],
)
def test_every_spelling_of_an_address_gives_its_canonical_one(spelling: str, address: str) -> None:
    assert names.canonical(spelling) == address
    assert names.is_address(address)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org"),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("B\u00dcCHER.example", "xn--bcher-kva.example"),
        ("_dmarc.example.org", "_dmarc.example.org"),
        ("localhost", "localhost"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
        ("1.2.3.4.example", "1.2.3.4.example"),
    ],
)
def test_a_name_has_one_spelling(spelling: str, name: str) -> None:
    assert names.canonical(spelling) == name
    assert not names.is_address(name)


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", "a..b", ".a", "a b", "a\n", "a\0b", "a/b", "a@b", "a:b", "%31", "a\\049.b", "*.example.org"),
        *("-a.org", "a-.org", "a" * 64 + ".org", "a." * 127 + "org", "\udcff.org", "\u200b"),
        *("127.0.0.1 x", "127.0.0.1\t", "[127.0.0.1]", "[::1", "::1::", "1.2.3.4.5", "256.256.256.256", "127.0.0.08"),
        *("a.0x7f", "x.1"),
    ],
)
def test_what_is_neither_a_name_nor_an_address_is_nothing(text: str) -> None:
    assert names.canonical(text) is None
