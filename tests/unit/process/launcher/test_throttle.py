import pytest

from tasks.process.launcher import throttle
from tasks.process.launcher.throttle import BURST_S, PAUSE_S, Throttle
from tasks.process.launcher.tree import Sample, Stat


def member(pid: int, state: bytes = b"R") -> Stat:
    return Stat(pid=pid, parent=1, start=1, state=state, memory_bytes=0, cpu_s=0.0)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    monkeypatch.setattr(
        throttle, "_send", lambda members, number: found.extend((each.pid, number.name) for each in members)
    )
    return found


def test_a_tree_ahead_of_its_share_is_stopped_as_long_as_it_is_ahead(sent: list[tuple[int, str]]) -> None:
    found = Throttle(0.5, 100.0)
    found.account(Sample((member(7), member(8, b"T")), 0.2), 100.2)
    assert sent == [(7, "SIGSTOP")]
    assert found.resume_at == pytest.approx(100.2 + 0.1 / 0.5)
    found.resume()
    assert sent[1:] == [(7, "SIGCONT")]
    assert found.resume_at is None


def test_a_tree_within_its_share_runs_on(sent: list[tuple[int, str]]) -> None:
    found = Throttle(0.5, 100.0)
    for step in range(1, 100):
        found.account(Sample((member(7),), 0.04 * step), 100.0 + 0.1 * step)
    assert sent == []


def test_rest_saves_up_no_more_than_a_burst(sent: list[tuple[int, str]]) -> None:
    found = Throttle(0.5, 0.0)
    found.account(Sample((member(7),), 0.0), 1000.0)
    found.account(Sample((member(7),), 1.0), 1001.0)
    assert found.resume_at == pytest.approx(1001.0 + min(PAUSE_S, (0.5 - BURST_S) / 0.5))


def test_without_a_share_nothing_is_stopped(sent: list[tuple[int, str]]) -> None:
    found = Throttle(None, 0.0)
    found.account(Sample((member(7),), 1000.0), 1.0)
    assert sent == []
