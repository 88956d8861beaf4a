import os

import pytest

from tasks.process.launcher import messages


@pytest.mark.parametrize("size", [0, 1000, 3_000_000])
def test_a_message_of_any_size_arrives_with_its_descriptors(size: int) -> None:
    a, b = messages.pair()
    with a, b:
        messages.send(a, {"text": "ä\udcff" * (size // 2)}, (0, 1))
        found = messages.receive(b)
        assert found.body == {"text": "ä\udcff" * (size // 2)}
        assert len(found.fds) == 2
        for each in found.fds:
            assert not os.get_inheritable(each)
            os.close(each)


def test_the_end_of_a_channel_is_an_empty_message() -> None:
    a, b = messages.pair()
    with b:
        a.close()
        assert messages.receive(b) == messages.Message({})
