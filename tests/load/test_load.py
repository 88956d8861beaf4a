"""The short form of `python -m tests.load`: a tenth of the mix, one worker of all queues that has done nothing yet.

How long it takes is not asserted.
"""

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from gaia import wire
from gaia.errors import NotConfigured
from tasks.browser import chromium
from tests.load import parts, stress
from tests.support.options import positive, whole


@pytest.fixture(autouse=True)
def _chromium() -> None:
    try:
        chromium.find(None)
    except NotConfigured as missing:
        pytest.skip(str(missing))


def test_every_operation_of_the_mix_in_flight_at_once_comes_back_right(tmp_path: Path) -> None:
    mix = parts.shared(0.1)
    with stress.world(tmp_path) as given, stress.workers(tmp_path / "cluster", given, wire.QUEUES) as url:
        took = stress.combined(url, given, "short", mix, held=True)
        in_tabs = stress.combined(url, given, "tabs", {"browser": 8}, in_tabs=True)
    assert (took.right, took.asked, took.in_flight) == (100, 100, 100)
    assert (in_tabs.right, in_tabs.asked) == (8, 8)
    assert took.ended_s.keys() == mix.keys()


@pytest.mark.parametrize("part", parts.MIX)
def test_the_bare_work_of_a_part_is_the_same_work(tmp_path: Path, part: str) -> None:
    with stress.world(tmp_path) as given:
        assert stress.bare(part, parts.operations(part, given, "bare", 4)).right == 4


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "x", "", "\u0663"])
def test_an_option_that_is_no_whole_number_is_refused(given: str) -> None:
    with pytest.raises(ArgumentTypeError):
        whole(given)
    assert whole("17") == 17


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "x", ""])
def test_an_option_that_is_no_number_above_zero_is_refused(given: str) -> None:
    with pytest.raises(ArgumentTypeError):
        positive(given)
    assert positive("0.5") == 0.5
