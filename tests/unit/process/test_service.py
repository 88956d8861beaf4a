import errno
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gaia.contracts import process
from gaia.errors import (
    ExecutableDenied,
    FileFailed,
    FileMissing,
    InvalidCall,
    PathDenied,
    StartFailed,
)
from tasks.process.service import ProcessService
from tests.unit.process.running import MakeService, python, run, shell

# --- what a run gives


def test_the_output_and_the_exit_code_are_the_programs(service: ProcessService) -> None:
    found = shell(service, r"printf 'out\000\377'; printf 'err' >&2; sleep 0.1; exit 3")
    assert (found.exit_code, found.signal, found.reason) == (3, None, "exited")
    assert (found.stdout, found.stderr, found.truncated) == (b"out\0\xff", b"err", False)
    assert found.wall_s > 0
    assert found.cpu_s > 0
    assert found.peak_memory_bytes > 0
    assert found.enforcement in {"cgroup2", "cgroup1", "sampled"}
    assert (found.stdout_bytes, found.stderr_bytes) == (5, 3)


def test_arguments_pass_as_they_are(service: ProcessService) -> None:
    arguments = ["", " ", "*", "$HOME", "'", '"', "\n", "ä", "-n", "; exit 9"]
    found = run(service, sys.executable, "-c", "import sys; sys.stdout.write('|'.join(sys.argv[1:]))", *arguments)
    assert found.stdout.decode() == "|".join(arguments)


def test_a_program_that_ends_by_a_signal_says_which(service: ProcessService) -> None:
    found = shell(service, "kill -SEGV $$")
    assert (found.exit_code, found.signal, found.reason) == (None, signal.SIGSEGV, "signal")


def test_cpu_time_of_children_counts(service: ProcessService) -> None:
    busy = "import time\nwhile time.process_time() < 0.2: pass"
    found = run(service, "/bin/sh", "-c", f'{sys.executable} -c "$0"; true', busy)
    assert found.cpu_s >= 0.2


def test_a_large_stdin_arrives_whole(service: ProcessService) -> None:
    body = os.urandom(5_000_000)
    found = run(service, "/bin/cat", stdin=body, limits=process.Limits(output_bytes=6_000_000))
    assert found.stdout == body
    assert found.reason == "exited"


def test_no_stdin_is_an_empty_one(service: ProcessService) -> None:
    assert run(service, "/bin/cat").stdout == b""


@pytest.mark.parametrize("script", ["exit 0", "exec 0<&-; echo still", "head -c 1 >/dev/null; exec 0<&-"])
def test_a_program_may_leave_its_stdin_unread(service: ProcessService, script: str) -> None:
    assert shell(service, script, stdin=bytes(3_000_000)).exit_code == 0


# --- what a program sees


def test_the_environment_holds_nothing_of_the_workers(service: ProcessService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAIA_REDIS_URL", "redis://:hidden@broker/0")
    found = run(service, "/usr/bin/env", env={"TZ": "UTC"})
    names = {each.partition(b"=")[0] for each in found.stdout.splitlines()}
    assert names == {b"PATH", b"LANG", b"HOME", b"TZ"}
    assert b"hidden" not in found.stdout


def test_a_refused_variable_stops_the_call(service: ProcessService) -> None:
    with pytest.raises(InvalidCall, match="LD_PRELOAD"):
        run(service, "/usr/bin/env", env={"LD_PRELOAD": "/evil.so"})


def test_no_descriptor_of_the_worker_is_inherited(service: ProcessService, root: Path) -> None:
    with (root / "file").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        found = python(service, "import os; print(os.listdir('/proc/self/fd'))", cwd="data:")
    assert found.stdout == b"['0', '1', '2', '3']\n"  # 3 is the listing itself


def test_signals_are_as_a_program_expects_them(service: ProcessService) -> None:
    found = python(service, "import signal; print(signal.pthread_sigmask(0, []))")
    assert found.stdout == b"set()\n"
    assert shell(service, "yes | head -n 1").stdout == b"y\n"


def test_the_working_directory_is_fresh_and_gone_afterwards(service: ProcessService) -> None:
    found = shell(service, 'pwd; ls -A; echo "$HOME"; mkdir -p a/b; touch a/b/c; ln -s / a/root')
    first, last = found.stdout.decode().split()
    assert first == last
    assert not Path(first).exists()
    assert run(service, "/bin/pwd").stdout.decode() != first + "\n"


def test_the_working_directory_may_lie_beneath_a_root(service: ProcessService, root: Path) -> None:
    assert run(service, "/bin/pwd", cwd="data:sub").stdout.decode() == f"{os.path.realpath(root)}/sub\n"
    assert run(service, "/bin/pwd", cwd="data:").stdout.decode() == f"{os.path.realpath(root)}\n"
    assert (root / "sub").is_dir()


@pytest.mark.parametrize(
    ("cwd", "error"),
    [
        ("data:..", PathDenied),
        ("data:sub/../..", PathDenied),
        ("data:out", PathDenied),
        ("data:/etc", PathDenied),
        ("/etc", PathDenied),
        ("", PathDenied),
        ("data:a\0", PathDenied),
        ("other:", PathDenied),
        ("data:no", FileMissing),
        ("data:file", FileFailed),
    ],
)
def test_a_working_directory_elsewhere_is_refused(
    service: ProcessService, root: Path, cwd: str, error: type[Exception]
) -> None:
    (root / "out").symlink_to("..")
    (root / "file").touch()
    with pytest.raises(error):
        run(service, "/bin/pwd", cwd=cwd)


# --- what may run


def test_a_program_that_is_not_listed_is_denied(service: ProcessService, tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to("/bin/ls")
    for path in ("/bin/ls", "/bin/../bin/ls", str(tmp_path / "sh"), "/no/such/program"):
        with pytest.raises(ExecutableDenied) as caught:
            run(service, path)
        assert caught.value.path == path


def test_a_program_named_through_a_link_runs_under_the_name_given(service: ProcessService, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/bin/sh")
    assert run(service, str(tmp_path / "link"), "-c", 'echo "$0"').stdout.decode() == f"{tmp_path}/link\n"


def test_a_script_runs_by_its_own_interpreter(make_service: MakeService, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/cat\nbody\n")
    script.chmod(0o755)
    service = make_service(executables=(str(script),))
    assert run(service, str(script)).stdout == b"#!/bin/cat\nbody\n"


def test_a_program_beneath_a_root_is_denied(make_service: MakeService, root: Path) -> None:
    script = root / "sub" / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    with pytest.raises(ExecutableDenied, match="files root"):
        run(make_service(executables=(str(script),)), str(script))


@pytest.mark.parametrize(
    ("body", "mode", "number"),
    [
        (b"no program", 0o755, errno.ENOEXEC),
        (b"#!/no/such/interpreter\n", 0o755, errno.ENOENT),
        (b"#!/bin/sh\n", 0o644, errno.EACCES),
        (None, 0o755, errno.EACCES),
        (None, None, errno.ENOENT),
    ],
)
def test_what_the_kernel_does_not_start_is_a_start_that_failed(
    make_service: MakeService, tmp_path: Path, body: bytes | None, mode: int | None, number: int
) -> None:
    program = tmp_path / "program"
    if body is not None:
        program.write_bytes(body)
        program.chmod(mode or 0)
    elif mode is not None:
        program.mkdir()
    with pytest.raises(StartFailed) as caught:
        run(make_service(executables=(str(program),)), str(program))
    assert caught.value.args == (str(program), os.strerror(number))


def test_arguments_beyond_what_the_kernel_takes_are_a_start_that_failed(service: ProcessService) -> None:
    with pytest.raises(StartFailed, match="too long"):
        run(service, "/bin/cat", "x" * 1_000_000)


def test_text_that_has_no_bytes_is_refused(service: ProcessService) -> None:
    with pytest.raises(InvalidCall) as caught:
        run(service, "/bin/cat", "\ud800")
    assert caught.value.field == "argv"
    with pytest.raises(InvalidCall) as caught:
        run(service, "/bin/cat", env={"TZ": "\ud800"})
    assert caught.value.field == "env"


@pytest.mark.parametrize("argv", [(), ("",), ("sh",), ("./sh",), ("/bin/sh", "a\0b"), ("/bin/sh\0",)])
def test_arguments_that_no_kernel_takes_never_make_a_call(service: ProcessService, argv: tuple[str, ...]) -> None:
    with pytest.raises(InvalidCall) as caught:
        run(service, *argv)
    assert caught.value.field == "argv"


def test_more_output_than_a_worker_keeps_is_refused(service: ProcessService) -> None:
    with pytest.raises(InvalidCall) as caught:
        run(service, "/bin/cat", limits=process.Limits(output_bytes=1 << 40))
    assert caught.value.field == "limits"


def test_many_runs_at_once_do_not_mix(service: ProcessService) -> None:
    def one(number: int) -> bool:
        body = str(number).encode() * 50_000
        return run(service, "/bin/cat", stdin=body).stdout == body

    before = set(threading.enumerate())
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(64)))
    assert set(threading.enumerate()) <= before
