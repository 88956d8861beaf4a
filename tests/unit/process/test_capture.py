from hypothesis import given
from hypothesis import strategies as st

from tasks.process.capture import Capture

CHUNKS = st.lists(st.binary(max_size=50), max_size=20)


@given(CHUNKS, st.integers(1, 200))
def test_the_first_or_the_last_bytes_are_kept(chunks: list[bytes], capacity: int) -> None:
    whole = b"".join(chunks)
    for tail, kept in ((False, whole[:capacity]), (True, whole[-capacity:])):
        found = Capture(capacity, tail)
        for each in chunks:
            found.take(each)
        assert (found.body(), found.total_bytes, found.truncated) == (kept, len(whole), len(whole) > capacity)


@given(CHUNKS, st.integers(0, 2000), st.integers(1, 100))
def test_what_is_given_from_an_offset_is_what_was_written_there(chunks: list[bytes], offset: int, most: int) -> None:
    whole = b"".join(chunks)
    found = Capture(10_000, tail=True)
    for each in chunks:
        found.take(each)
    start, data = found.since(offset, most)
    assert whole[start : start + len(data)] == data
    assert start == min(offset, len(whole))


def test_a_tail_stays_near_its_capacity() -> None:
    found = Capture(1000, tail=True)
    for _ in range(1000):
        found.take(bytes(5000))
    assert len(found._kept) <= 1000 + (1 << 16) + 5000
    start, data = found.since(0, 1 << 30)
    assert start + len(data) == found.total_bytes == 5_000_000


def test_the_last_line_is_readable_whatever_was_written() -> None:
    found = Capture(1000)
    assert found.last_line() == ""
    found.take(b"first\nlast \xff\n\n")
    assert found.last_line() == "last \ufffd"


def test_what_is_settled_takes_no_more_and_is_one_copy() -> None:
    capture = Capture(4, tail=True)
    capture.take(b"abcdef")
    settled = capture.settle()
    capture.take(b"more")
    assert (settled, capture.total_bytes) == (b"cdef", 6)
    assert capture.body() is settled
    assert capture.since(3, 10) == (3, b"def")
