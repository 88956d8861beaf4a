"""The short form of `python -m tests.chaos`: every row once, a few faults each.

Nothing may be lost, and every call that ended has its result. How often calls run twice is not bounded by a number: the
reason is asserted where there must be none.
"""

from pathlib import Path

import pytest

from tests.chaos.rows import ROWS, Scale

SHORT = Scale(tasks=400, kills=8)

ONCE = {"slow", "cut-producer"}
"""Rows in which no lease can lapse and no worker dies: nothing may run twice."""

LONG = {"silent-worker", "pause", "server-stop", "kill-stock", "healthy"}
"""Not here: they wait for time-outs, or show what stock Celery does."""


@pytest.mark.timeout(100)
@pytest.mark.parametrize("name", [name for name in ROWS if name not in LONG])
def test_nothing_vanishes(name: str, tmp_path: Path) -> None:
    account = ROWS[name](tmp_path, SHORT)
    assert account.submitted > 0
    assert (account.lost, account.dead, account.unanswered, account.late) == (0, 0, 0, 0), account
    assert account.left == {}
    assert account.notes == []
    if name in ONCE:
        assert account.repeated <= account.uncertain
