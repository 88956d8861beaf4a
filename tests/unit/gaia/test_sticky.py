"""Ids of what lives on one worker."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaia.contracts.base import CALLS, Call, Result, contract
from gaia.errors import InvalidCall
from gaia.sticky import HolderId, escape, new_boot
from gaia.store import keys

BOOT, RANDOM = "0123456789abcdef", "0123456789abcdef" * 2


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=80))
def test_an_id_is_read_back_whatever_the_node_is_called(node: str) -> None:
    made = HolderId.new(node, new_boot())
    text = made.format()
    assert HolderId.parse(text) == made
    assert text.isascii()
    assert text.count(".") == 2
    assert text.isprintable()


def test_a_plain_node_name_is_spelt_as_it_is() -> None:
    assert HolderId("api-1_x@host", BOOT, RANDOM).format() == f"api-1_x@host.{BOOT}.{RANDOM}"
    assert keys.node("api@host") == "gaia:node:api@host"
    assert keys.own_queue("api@host.example") == "gaia.node.api@host%2Eexample"


def test_two_nodes_never_share_a_spelling() -> None:
    names = ["a.b", "a%2Eb", "a%2eb", "a b", "a\x06b", "a\nb", "A.B"]
    assert len({escape(each) for each in names}) == len(names)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a.b.c",
        f"a.{BOOT}",
        f".{BOOT}.{RANDOM}",
        f"a.{BOOT}.{RANDOM}.x",
        f"a.{BOOT}.{RANDOM}\n",
        f" a.{BOOT}.{RANDOM}",
        f"a b.{BOOT}.{RANDOM}",
        f"a.{BOOT.upper()}.{RANDOM}",
        f"a.{BOOT}0.{RANDOM}",
        f"a.{BOOT}.{RANDOM[1:]}",
        f"a%2e.{BOOT}.{RANDOM}",
        f"a%41.{BOOT}.{RANDOM}",
        f"a%FF.{BOOT}.{RANDOM}",
        f"a%.{BOOT}.{RANDOM}",
        f"ä.{BOOT}.{RANDOM}",
        f"a\x00.{BOOT}.{RANDOM}",
        f"{'a' * 2000}.{BOOT}.{RANDOM}",
        f"a.{BOOT}.{'٣' * 32}",
        None,
        7,
        b"a.b.c",
    ],
)
def test_anything_else_is_no_id(text: Any) -> None:
    with pytest.raises(ValueError, match="must") as found:
        HolderId.parse(text)
    if isinstance(text, str) and len(text) > 10:
        assert text not in str(found.value)


@pytest.fixture(scope="module")
def ask() -> Any:
    class Said(Result):
        """Nothing."""

    class Ask(Call[Said], operation="sticky_test.ask"):
        """Ask."""

        HOLDER = "thing"
        thing: str | None

    yield contract(Ask)
    del CALLS["sticky_test.ask"]


def test_a_call_names_its_holder_and_refuses_what_is_no_id(ask: Any) -> None:
    thing = HolderId("a@b", BOOT, RANDOM)
    assert ask(thing.format()).holder() == thing
    assert ask(None).holder() is None
    for bad in ("a.b.c", 7):
        with pytest.raises(InvalidCall, match="thing"):
            ask(bad)
    with pytest.raises(InvalidCall, match="thing"):
        ask.from_json({"thing": "x"})
