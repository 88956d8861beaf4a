"""One of many."""

import pytest

from gaia.errors import TimedOut
from gaia.outcome import Outcome


def test_a_result_is_given_and_an_error_raised() -> None:
    assert Outcome(ok=True, result=5).unwrap() == 5
    error = TimedOut("x", 1)
    with pytest.raises(TimedOut) as caught:
        Outcome(ok=False, error=error).unwrap()
    assert caught.value is error


def test_none_is_a_result_too() -> None:
    assert Outcome[None](ok=True).unwrap() is None
