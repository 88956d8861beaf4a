"""`gaia profile`: what is refused before anybody is asked."""

import socket
from pathlib import Path

import click
import pytest
import redis

from gaia.store.nodes import Node, beat
from tasks.cli import profile
from tasks.cli.main import main
from tasks.runtime import profiles
from tasks.runtime.process import machine


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["profile", *arguments])
    said = capsys.readouterr()
    assert said.out == ""
    return int(ended.value.code or 0), said.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["threads", "x@vm", "--format", "svg"], "threads comes as text alone"),
        (["cpu", "x@vm", "--format", "text"], "--format text is of waits alone"),
        (["heap", "x@vm", "--py-spy"], "py-spy samples the CPU alone"),
        (["cpu", "--queue", "api", "--py-spy"], "name it in place of --queue"),
        (["cpu", "x@vm", "--py-spy", "--format", "pprof"], "py-spy writes svg, speedscope, folded, not pprof"),
    ],
)
def test_what_does_not_go_together_is_refused(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(capsys, *arguments)
    assert code == 2
    assert told in said


def test_a_file_that_cannot_be_written_is_told_before_the_profile_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nope" / "x.svg"
    assert run(capsys, "cpu", "x@vm", "--output", str(path)) == (1, f"gaia: No such file or directory: {path}\n")


def test_the_formats_are_those_of_the_pages() -> None:
    assert set(profile.ENDINGS) == set(profiles.FORMS)


@pytest.mark.parametrize(
    ("where", "told"), [({"host": "away"}, "runs on away"), ({"machine": "x:1"}, "another container")]
)
def test_py_spy_is_refused_where_the_pid_means_nothing(
    fresh_url: str, monkeypatch: pytest.MonkeyPatch, where: dict[str, str], told: str
) -> None:
    own = {"host": socket.gethostname(), "machine": machine(), **where}
    far = Node("far@vm", "boot", 1, queues=("api",), concurrency=1, version="0", started_at=0.0, **own)
    monkeypatch.setenv("GAIA_REDIS_URL", fresh_url)
    with redis.Redis.from_url(fresh_url) as store:
        beat(store, far)
        with pytest.raises(click.ClickException, match=told):
            profile._node("far@vm")
