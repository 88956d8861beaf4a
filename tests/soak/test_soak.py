"""The short form of `python -m tests.soak`: a worker leaks one of each kind, and a session is left open."""

from typing import get_args

import pytest

from gaia import browser
from tests.soak import leaks
from tests.soak.run import soaking

SCENES = (
    *("api.requests", "api.request_that_is_cancelled", "files.archive", "process.programs"),
    *("process.program_that_is_cancelled", "network.names", "browser.session"),
)
"""A few of each queue that take no long waits."""

KINDS = tuple(each for each in get_args(leaks.Kind) if each != "nothing")
LOST = 15
"""Of each kind, at least."""

SEEN = {
    *("leak: private, bytes", "leak: resident, bytes", "leak: descriptors", "leak: threads", "leak: children"),
    *("leak: zombies", "leak: unix sockets", "leak: below it: threads", "leak: below it: descriptors"),
    *("browser: live: sessions", "browser: live: tabs"),
    *("redis: keys without an end: soak:leaked:*", "disk: tmp/soak-leaked-*"),
}


@pytest.mark.timeout(300)
def test_a_cluster_under_load_grows_in_nothing_but_what_a_worker_leaks() -> None:
    with soaking(SCENES, rate=12.0, quiet_s=0.6, within_s=200) as soak:
        soak.warm_up(rounds=1)
        soak.field.gaia.submit(browser.Open(idle_s=300)).get(60)
        soak.load.choose({**soak.load.decks, leaks.QUEUE: leaks.deck(KINDS)})
        found = soak.steady(0, pause_s=0.2, rounds={leaks.QUEUE: LOST}, lost=SEEN)
    assert found.failures == []
    assert not found.restarted
    assert all(found.calls[queue] > 0 for queue in ("api", "files", "process", "network", "browser"))
    assert {str(each.quantity) for each in found.leaks} == SEEN, "\n".join(map(str, found.leaks))
    # A call loses one of its kind, and of each kind there are as many calls.
    (files,) = (each for each in found.leaks if each.quantity.owner == "disk")
    assert files.grown >= LOST
    assert files.grown == pytest.approx(found.calls[leaks.QUEUE] / len(KINDS), abs=2)
