"""The short forms of `python -m tests.torture race` and `crash`."""

from pathlib import Path

import pytest

from tasks.roots import openat2
from tests.torture import crash, race


@pytest.mark.parametrize("way", sorted(race.WAYS))
def test_no_call_leaves_its_root_while_a_directory_is_swapped_for_a_link(tmp_path: Path, way: str) -> None:
    if way == "openat2" and not openat2.available():
        pytest.skip("this kernel has no openat2")
    found = race.run(tmp_path, calls=2000, way=way)
    assert found.escapes == []
    assert found.outcomes["ok"] > 0
    assert found.outcomes["PathDenied"] > 0


def test_a_write_that_was_acknowledged_is_whole_after_its_worker_was_killed(fresh_url: str, tmp_path: Path) -> None:
    found = crash.run(tmp_path, fresh_url, writes=60, kills=2)
    assert (found.acknowledged, found.failed) == (60, 0), found
    assert (found.broken, found.left) == ([], [])
    assert found.kills == 2
