"""The command line: help, and one clear line for what goes wrong."""

import ast
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from config.settings import SettingsError, read, variables
from gaia.redaction import scrub
from gaia.store.connection import URL_FORM
from tasks.cli import main as command
from tests.support import cluster

ANY_PORT = ("--flower-port", "0", "--monitor-port", "0")


def gaia(*arguments: str, cwd: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-P", "-m", "tasks.cli.main", *arguments],
        env={**cluster.clean_environ(), **environ},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def refused(done: "subprocess.CompletedProcess[str]", code: int = 1) -> str:
    """Give the one line of a failed command."""
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done.stderr
    assert done.stderr.startswith("gaia: ")
    return done.stderr


def test_help_lists_the_commands_without_importing_them() -> None:
    code = "import sys\nfrom tasks.cli.main import main\ntry: main(['--help'])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"\n  {name} " in done.stdout for name in command.COMMANDS)
    assert not {"celery", "pydantic", "rich", "redis", "tornado"} & set(done.stdout.split())


@pytest.mark.parametrize("name", command.COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main([name, "--help"])
    assert caught.value.code == 0
    assert f"Usage: gaia {name}" in capsys.readouterr().out


def test_an_unknown_command_is_named(tmp_path: Path) -> None:
    assert "'upp'" in refused(gaia("upp", cwd=tmp_path), 2)


@pytest.mark.parametrize("arguments", [["up", "--queues", "api,web"], ["up", "--redis-port", "0"], ["up", "extra"]])
def test_a_wrong_argument_is_named(tmp_path: Path, arguments: list[str]) -> None:
    assert "`gaia up --help`" in refused(gaia(*arguments, cwd=tmp_path), 2)


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "a\nb", "%h", b"\xff"])
def test_a_name_that_no_id_can_hold_is_refused(tmp_path: Path, name: str) -> None:
    assert "--name" in refused(gaia("worker", "api", "--name", name, cwd=tmp_path), 2)


def test_a_misspelt_setting_is_named(tmp_path: Path) -> None:
    for name in ("up", "flower", "chromium", "demo"):
        assert "did you mean GAIA_FLOWER__PORT?" in refused(gaia(name, cwd=tmp_path, GAIA_FLOWER__PROT="1"))


def test_env_without_a_cluster_says_so(tmp_path: Path) -> None:
    assert f"no cluster is ready in {tmp_path / '.gaia'}" in refused(gaia("env", cwd=tmp_path))


def test_an_unreachable_redis_is_named_without_its_password(tmp_path: Path) -> None:
    line = refused(gaia("up", *ANY_PORT, cwd=tmp_path, GAIA_REDIS_URL="redis://:geheim@127.0.0.1:1/0"))
    assert "127.0.0.1:1" in line
    assert "unset GAIA_REDIS_URL" in line
    assert "geheim" not in line


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "127.0.0.1:6379", "redis://:p w@[::1", "redis://127.0.0.1:x/0"])
def test_a_malformed_redis_url_is_refused(tmp_path: Path, url: str) -> None:
    refused(gaia("up", *ANY_PORT, cwd=tmp_path, GAIA_REDIS_URL=url))


def test_a_taken_monitor_port_is_named_with_the_mend(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused(gaia("up", "--no-flower", "--monitor-port", str(port), cwd=tmp_path))
    assert f"port {port} on 127.0.0.1 is taken: choose another with --monitor-port" in line


def test_a_taken_flower_port_is_named_with_the_mend(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        line = refused(gaia("up", "--no-monitor", "--flower-port", str(port), cwd=tmp_path))
    assert f"port {port} on 127.0.0.1 is taken: choose another with --flower-port" in line


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (["--flower-port", "{taken}"], {}),
        (["--redis-port", "{taken}", *ANY_PORT], {}),
        (["--queues", "api", *ANY_PORT], {"GAIA_WORKER__PORT": "{taken}"}),
        (ANY_PORT, {"GAIA_REDIS_URL": "redis://127.0.0.1:1/0"}),
    ],
)
def test_a_cluster_that_does_not_start_leaves_no_directory(
    tmp_path: Path, arguments: list[str], environ: dict[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = str(listener.getsockname()[1])
        given = [each.format(taken=taken) for each in arguments]
        variables = {name: value.format(taken=taken) for name, value in environ.items()}
        refused(gaia("up", "--state-dir", "new/state", *given, cwd=tmp_path, **variables))
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_that_does_not_start_leaves_a_directory_that_was_there(tmp_path: Path) -> None:
    (tmp_path / ".gaia").mkdir()
    (tmp_path / ".gaia" / "mine").touch()
    refused(gaia("up", *ANY_PORT, cwd=tmp_path, GAIA_REDIS_URL="redis://127.0.0.1:1/0"))
    assert (tmp_path / ".gaia" / "mine").exists()


def test_one_page_port_for_many_workers_is_refused(tmp_path: Path) -> None:
    line = refused(gaia("up", "--queues", "network,api", *ANY_PORT, cwd=tmp_path, GAIA_WORKER__PORT="9809"))
    assert "GAIA_WORKER__PORT is 9809, and one port cannot serve the 2 workers" in line
    assert list(tmp_path.iterdir()) == []


def test_an_open_flower_stops_the_boot(tmp_path: Path) -> None:
    assert "GAIA_FLOWER__BASIC_AUTH" in refused(gaia("up", cwd=tmp_path, GAIA_FLOWER__HOST="0.0.0.0"))  # noqa: S104


def test_a_missing_chromium_is_named(tmp_path: Path) -> None:
    for name in ("chromium", "demo"):
        line = refused(gaia(name, cwd=tmp_path, GAIA_BROWSER__CHROMIUM=str(tmp_path / "nothing")))
        assert "GAIA_BROWSER__CHROMIUM is '" in line
        assert "not set" not in line


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "choose another --state-dir" in refused(gaia("up", "--state-dir", "file/x", cwd=tmp_path))


@pytest.mark.parametrize("name", ["limits", "dead"])
def test_a_command_without_its_subcommand_shows_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main([name])
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert f"Usage: gaia {name} [OPTIONS] COMMAND" in said.splitlines()[0]
    assert "\n  list " in said


def test_a_missing_argument_is_told_in_one_plain_line(tmp_path: Path) -> None:
    assert refused(gaia("worker", cwd=tmp_path), 2) == (
        "gaia: Missing argument 'QUEUE...'. Choose from: api, files, browser, process, network. "
        "See `gaia worker --help`.\n"
    )
    assert "Choose from: cpu, heap, " in refused(gaia("profile", cwd=tmp_path), 2)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"gaia, version {version('gaia-workers')}\n"


def sentences(tree: ast.AST) -> Iterator[str]:
    """Give the texts of what is raised or returned, other values in them as a word."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Raise, ast.Return)):
            for each in ast.walk(node):
                if isinstance(each, ast.JoinedStr):
                    yield "".join(str(one.value) if isinstance(one, ast.Constant) else "value" for one in each.values)
                elif isinstance(each, ast.Constant) and isinstance(each.value, str):
                    yield each.value


def test_no_sentence_of_ours_looks_like_a_secret() -> None:
    found = [
        text
        for package in ("tasks", "config", "client/gaia")
        for path in (cluster.ROOT / package).rglob("*.py")
        for text in sentences(ast.parse(path.read_text()))
    ]
    assert len(found) > 1000
    # The one that is an address, and holds a password.
    assert {text for text in found if scrub(text) != text} == {"redis://:value@value:value/0"}


@pytest.mark.parametrize("url", ["localhost", "redis://h:port"])
def test_the_form_of_an_address_is_told_unharmed(tmp_path: Path, url: str) -> None:
    assert f"GAIA_REDIS_URL {URL_FORM}\n" in refused(gaia("up", cwd=tmp_path, GAIA_REDIS_URL=url))


def test_a_complaint_about_any_setting_is_told_unharmed() -> None:
    values = ("", "short", "-1", "{}", '{"p": "nonsense"}', '["nonsense"]')
    told = [found for name in variables() for value in values if (found := complaint(name, value))]
    assert len(told) > len(variables())
    assert [scrub(each) for each in told] == told


def complaint(name: str, value: str) -> str:
    try:
        read({name: value})
    except SettingsError as failure:
        return str(failure)
    return ""


def test_an_unknown_setting_is_told_once(tmp_path: Path) -> None:
    assert refused(gaia("up", cwd=tmp_path, GAIA_FOO="1")) == "gaia: GAIA_FOO is no setting\n"
    line = refused(gaia("up", cwd=tmp_path, GAIA_FLOWER__PROT="1"))
    assert line == "gaia: GAIA_FLOWER__PROT is no setting, did you mean GAIA_FLOWER__PORT?\n"


def test_a_taken_page_port_of_a_worker_is_told_in_one_line(tmp_path: Path, fresh_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        line = refused(gaia("worker", "api", cwd=tmp_path, GAIA_REDIS_URL=fresh_url, GAIA_WORKER__PORT=port))
    assert f"the worker's pages cannot have port {port} on 127.0.0.1" in line


def test_a_redis_that_wants_a_password_says_so(tmp_path: Path, valkey: str) -> None:
    where = valkey.rpartition("@")[2]
    line = refused(gaia("worker", "api", cwd=tmp_path, GAIA_REDIS_URL=f"redis://{where}"))
    assert "cannot be reached: it wants a password, and the URL has none" in line


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("tasks.cli.env.env.callback", broken)
    with pytest.raises(ZeroDivisionError):
        command.main(["env"])
