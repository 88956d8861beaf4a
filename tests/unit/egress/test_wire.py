"""Answers as bytes: read as dnspython reads them, and nothing else let through."""

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.egress import wire


def answer(kind: str, *lines: str, name: str = "www.test", rcode: dns.rcode.Rcode = dns.rcode.NOERROR) -> bytes:
    asked = wire.question(name, kind)
    made = dns.message.make_response(dns.message.from_wire(wire.query(7, asked)))
    made.set_rcode(rcode)
    for line in lines:
        owner, ttl, sort, value = line.split(None, 3)
        made.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", sort, value))
    return made.to_wire()


def read(message: bytes, kind: str = "A", name: str = "www.test") -> wire.Found:
    return wire.read(message, wire.question(name, kind), kind)


def test_a_question_is_what_dnspython_asks() -> None:
    made = dns.message.from_wire(wire.query(513, wire.question("www.test", "MX")))
    assert (made.id, str(made.question[0]), made.edns, made.payload) == (513, "www.test. IN MX", 0, 1232)
    assert made.flags == dns.flags.RD


def test_addresses_are_read_through_aliases_with_the_least_ttl() -> None:
    lines = (
        "www.test. 60 CNAME a.test.",
        "A.test. 7 CNAME b.test.",
        "b.test. 30 A 192.0.2.1",
        "b.test. 30 A 192.0.2.2",
    )
    assert read(answer("A", *lines)) == wire.Found(("192.0.2.1", "192.0.2.2"), 7.0)
    six = answer("AAAA", "www.test. 5 AAAA 2001:db8::1")
    assert read(six, "AAAA") == wire.Found(("2001:db8::1",), 5.0)


def test_an_address_of_another_name_is_not_taken() -> None:
    assert read(answer("A", "evil.test. 60 A 192.0.2.66")) == wire.NOTHING
    assert read(answer("A", "www.test. 60 CNAME a.test.", "evil.test. 60 A 192.0.2.66")) == wire.NOTHING


def test_other_types_come_in_presentation_form() -> None:
    assert read(answer("MX", "www.test. 60 MX 10 mail.test."), "MX") == wire.Found(("10 mail.test.",), 60.0)
    assert read(answer("TXT", 'www.test. 60 TXT "v=spf1 -all"'), "TXT") == wire.Found(('"v=spf1 -all"',), 60.0)


def test_what_does_not_exist_and_what_failed_are_told_apart() -> None:
    assert read(answer("A", rcode=dns.rcode.NXDOMAIN)) == wire.NOTHING
    assert read(answer("A")) == wire.NOTHING
    with pytest.raises(wire.Refused) as caught:
        read(answer("A", rcode=dns.rcode.SERVFAIL))
    assert caught.value.rcode == dns.rcode.SERVFAIL


def test_a_loop_of_aliases_is_malformed() -> None:
    with pytest.raises(wire.Malformed):
        read(answer("A", "www.test. 60 CNAME a.test.", "a.test. 60 CNAME www.test."))


def test_a_truncated_answer_says_so() -> None:
    message = bytearray(answer("A"))
    message[2] |= 2
    with pytest.raises(wire.Truncated):
        read(bytes(message))


def test_a_pointer_forward_or_at_itself_is_malformed() -> None:
    sound = answer("A", "www.test. 60 A 192.0.2.1")
    at = 12 + len(wire.question("www.test", "A"))
    for target in (at, at + 8, 0x3FFF):
        message = sound[:at] + (0xC000 | target).to_bytes(2, "big") + sound[at + 2 :]
        with pytest.raises(wire.Malformed):
            read(message)


def test_a_name_of_more_than_255_bytes_is_malformed() -> None:
    asked = wire.question("a.test", "A")
    for labels, fits in ((3, True), (4, False)):
        owner = b"".join(b"\x3f" + b"x" * 63 for _ in range(labels)) + b"\x3d" + b"x" * 61 + b"\0"
        record = owner + b"\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1"
        message = b"\0\1\x81\x80\0\1\0\1\0\0\0\0" + asked + record
        if fits:
            assert wire.read(message, asked, "A") == wire.NOTHING
        else:
            with pytest.raises(wire.Malformed):
                wire.read(message, asked, "A")


def test_only_the_repeated_question_is_an_answer() -> None:
    asked = wire.question("www.test", "A")
    assert wire.is_answer(answer("A"), asked)
    assert not wire.is_answer(answer("AAAA"), asked)
    assert not wire.is_answer(answer("A", name="wwx.test"), asked)


@given(st.data())
def test_no_bytes_bring_anything_but_an_answer_or_a_finding(data: st.DataObject) -> None:
    sound = answer("A", "www.test. 60 CNAME a.test.", "a.test. 60 A 192.0.2.1")
    message = bytearray(sound)
    for _ in range(data.draw(st.integers(0, 6))):
        message[data.draw(st.integers(0, len(sound) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(message[: data.draw(st.integers(0, len(sound)))])
    for kind in ("A", "AAAA", "MX"):
        try:
            found = read(cut, kind)
        except (wire.Malformed, wire.Truncated, wire.Refused):
            continue
        assert all(isinstance(each, str) for each in found.records)
        assert found.ttl_s >= 0
