"""The look at kombu and redis-py before a worker starts."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual

from tasks.broker import probe

ROOT = Path(__file__).parents[3]


def test_the_locked_versions_fit_and_nothing_is_left_behind() -> None:
    before = set(threading.enumerate())
    probe.require_fit()
    for each in set(threading.enumerate()) - before:
        each.join(timeout=5)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (kombu_redis.MultiChannelPoller, "_register_BRPOP"),
        (kombu_redis.MultiChannelPoller, "_client_registered"),
        (kombu_redis.Channel, "_q_for_pri"),
        (kombu_redis.Channel, "_flush_brpop_reauth"),
        (kombu_redis.Channel, "_create_client"),
        (kombu_redis.Channel, "_update_queue_cycle"),
        (virtual.QoS, "append"),
        (virtual.Transport, "_deliver"),
        (redis.Connection, "pack_commands"),
        (redis.Connection, "send_packed_command"),
    ],
)
def test_an_inside_that_is_gone_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    home = next(each for each in owner.__mro__ if name in vars(each))
    monkeypatch.delattr(home, name)
    with pytest.raises(probe.Unfit) as found:
        probe.require_fit()
    text = str(found.value)
    assert text.startswith("kombu 5.")
    assert "do not fit Gaia's transport; failed: " in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("owner", "name", "changed", "step"),
    [
        (kombu_redis.Channel, "_q_for_pri", lambda _, queue, pri: f"{queue}:{pri}", "a channel is opened"),
        (virtual.Transport, "_deliver", lambda *_: None, "a message is fetched"),
        (virtual.QoS, "ack", lambda *_: None, "a message is acknowledged"),
    ],
)
def test_an_inside_that_behaves_otherwise_is_refused_with_the_step(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, changed: Any, step: str
) -> None:
    monkeypatch.setattr(owner, name, changed)
    with pytest.raises(probe.Unfit, match=step):
        probe.require_fit()


def test_a_worker_of_unfit_versions_does_not_start() -> None:
    code = (
        "import sys; from kombu.transport import redis; del redis.MultiChannelPoller._register_BRPOP\n"
        "from tasks.app import app\n"
        "app.Worker(quiet=True, hostname='x@y', pool='threads')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("gaia: kombu 5.")
    assert len(done.stderr.splitlines()) == 1
