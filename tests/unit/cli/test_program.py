import pytest

from tasks.cli.program import Backoff, ending


def test_the_wait_doubles_up_to_its_cap() -> None:
    backoff = Backoff()
    assert [backoff.after(1.0) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_minute_of_life_makes_the_wait_short_again() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.after(1.0)
    assert backoff.after(60.0) == 0.5
    assert backoff.after(59.9) == 1.0


@pytest.mark.parametrize(
    ("code", "text"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "SIGKILL"), (-200, "signal 200")]
)
def test_an_ending_is_told_by_name(code: int, text: str) -> None:
    assert ending(code) == text
