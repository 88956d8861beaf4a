"""What a page says where a profile cannot be taken; those of real workers: tests/integration/test_profiles.py."""

from collections.abc import Iterator

import pytest

from tasks.runtime import profiles
from tasks.runtime.pages import Server
from tests.support.cluster import get


@pytest.fixture
def address() -> Iterator[str]:
    server = Server("127.0.0.1", 0, profiles.answer)
    server.start()
    yield f"http://127.0.0.1:{server.port}{profiles.PREFIX}"
    server.close()


def test_a_kernel_that_tells_nothing_of_threads_is_told(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.profiling.kernel._TASKS", "/proc/self/nothing")
    status, text = get(f"{address}waits?seconds=0.05")
    assert status == 501
    assert text.startswith("the kernel does not tell: ")


@pytest.mark.parametrize("name", ["heap", "profile"])
def test_what_else_fails_is_not_laid_to_the_kernel(address: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fail(_: float) -> profiles.Profile:
        raise OSError("no room")

    monkeypatch.setitem(profiles.TAKERS, name, (fail, 1.0))
    status, text = get(f"{address}{name}")
    assert (status, text) == (500, "the page could not be made; the log tells why\n")
    monkeypatch.undo()
    assert get(f"{address}{name}?seconds=0.05&format=json")[0] == 200
