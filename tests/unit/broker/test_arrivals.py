"""Messages between their fetch and their delivery."""

from tasks.broker.arrivals import Arrivals


def _message(tag: str) -> dict[str, object]:
    return {"properties": {"delivery_tag": tag}}


def test_a_suspect_is_delivered_after_its_release_and_others_at_once() -> None:
    found = Arrivals()
    found.add("q", _message("suspect"), is_suspect=True)
    assert not found
    found.add("q", _message("plain"), is_suspect=False)
    assert found.pop() == ("q", _message("plain"))
    assert not found
    found.release()
    assert found.pop() == ("q", _message("suspect"))


def test_a_channel_that_ends_gives_suspects_back_too() -> None:
    found = Arrivals()
    found.add("q", _message("a"), is_suspect=False)
    found.add("q", _message("b"), is_suspect=True)
    assert found.clear() == ["a", "b"]
    assert not found
    assert found.clear() == []
