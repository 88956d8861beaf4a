"""The short forms of `python -m tests.torture race`, `crash` and `limits`."""

from pathlib import Path

import pytest

from tasks.roots import openat2
from tests.support.limits_cluster import over_since
from tests.torture import crash, limits, race


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


def test_workers_of_the_api_queue_keep_a_rate_together_though_one_is_killed(fresh_url: str, tmp_path: Path) -> None:
    """A request may arrive a second late on a busy machine; a burst too many is three seconds' worth."""
    found = limits.rate(tmp_path, fresh_url, rate_per_s=100, burst=300, seconds=3, processes=3, spread_s=1.0)
    assert found.over_since <= 0, found
    assert found.most_over <= 0, found
    assert found.killed, found
    assert found.arrivals > found.burst, found


def test_a_host_that_is_down_gets_one_probe_of_all_workers_in_each_half_open_window(
    fresh_url: str, tmp_path: Path
) -> None:
    found = limits.probes(tmp_path, fresh_url, open_s=0.5, seconds=4, processes=3)
    assert found.holds(), found


def test_the_worst_window_is_found_wherever_it_is() -> None:
    assert limits.most_over([0.0, 10.0, 10.1, 10.2, 10.3], 1.0, 2.0) == pytest.approx(4 - 0.3 - 2)
    assert limits.most_over([0.0, 1.0, 2.0], 1.0, 1.0) == 0.0


def test_a_request_that_arrives_late_is_no_excess_of_those_that_had_leave_since_the_start() -> None:
    late = [1.0, 1.0, 1.0, 1.0, 2.0]
    assert limits.most_over(late, 1.0, 2.0) > 0
    assert over_since(-1.0, late, 1.0, 2.0) <= 0
    assert over_since(0.0, [*late, 2.0, 2.0], 1.0, 2.0) > 0
