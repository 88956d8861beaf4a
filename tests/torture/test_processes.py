"""The short form of `python -m tests.torture processes`: each program once, in each mode."""

from contextlib import nullcontext

import pytest

from tests.torture import processes
from tests.unit.process.modes import MODES, Mode, identify, require


@pytest.fixture(params=MODES, ids=identify)
def mode(request: pytest.FixtureRequest) -> Mode:
    found: Mode = request.param
    require(found)
    return found


@pytest.mark.parametrize("case", processes.CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_program_that_does_what_it_can_to_stay_ends_for_the_right_reason(mode: Mode, case: processes.Case) -> None:
    try:
        with processes.fence() if case.storm else nullcontext(), processes.service_of(mode) as service:
            found = processes.run(service, mode, case, identify(mode))
    except processes.NoFence:
        pytest.skip(f"NOT RUN: {identify(mode)}: a storm can be fenced in by no control group here")
    assert (found.survivors, found.reason in processes.expected(case, mode)) == (0, True), found
    assert found.sound


def test_a_killed_worker_leaves_no_process(mode: Mode) -> None:
    found = processes.kill_worker(mode, identify(mode))
    assert found.sound, found
