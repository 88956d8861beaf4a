import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gaia.contracts import process
from gaia.errors import Cancelled, DeadlineExceeded, StartFailed
from tasks.process.service import ProcessService
from tasks.scope import Scope
from tests.unit.process.running import Bearers, MakeService, WaitUntil, python, run, shell

STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.02; done"


@pytest.mark.parametrize("stream", [1, 2])
def test_output_past_its_limit_stops_the_program(service: ProcessService, stream: int) -> None:
    found = shell(service, f"exec yes >&{stream}", limits=process.Limits(output_bytes=1001))
    assert (found.reason, found.truncated, found.signal) == ("output", True, signal.SIGTERM)
    assert (found.stdout, found.stderr)[stream - 1] == (b"y\n" * 501)[:1001]


def test_output_of_exactly_the_limit_is_whole(service: ProcessService) -> None:
    limits = process.Limits(output_bytes=100_000)
    found = run(service, "/bin/cat", stdin=bytes(100_000), limits=limits)
    assert (len(found.stdout), found.truncated, found.reason) == (100_000, False, "exited")
    found = run(service, "/bin/cat", stdin=bytes(100_001), limits=limits)
    assert (len(found.stdout), found.truncated, found.reason) == (100_000, True, "output")


def test_a_program_that_floods_and_ignores_sigterm_is_killed(make_service: MakeService) -> None:
    service = make_service(grace_s=0.1, output_bytes=1000)
    found = shell(service, "trap '' TERM; exec yes")
    assert (found.reason, found.signal, len(found.stdout)) == ("output", signal.SIGKILL, 1000)


def test_memory_past_its_limit_stops_the_program(make_service: MakeService) -> None:
    service = make_service(memory_bytes=64 << 20, grace_s=60)
    found = python(service, "import signal; signal.signal(15, signal.SIG_IGN); b = b'x' * (200 << 20); signal.pause()")
    assert (found.reason, found.signal) == ("memory", signal.SIGKILL)
    assert found.peak_memory_bytes > 63 << 20


def test_a_program_that_grows_in_its_grace_time_is_killed(make_service: MakeService) -> None:
    service = make_service(memory_bytes=64 << 20, grace_s=50)
    code = "import signal; signal.signal(15, lambda *_: [b'x' * (200 << 20), signal.pause()]); signal.pause()"
    found = python(service, code, timeout_s=0.3)
    assert (found.reason, found.signal) == ("timeout", signal.SIGKILL)


def test_memory_is_counted_over_the_tree(service: ProcessService, marker: str) -> None:
    code = f"import os, time; os.fork(); os.fork(); b = b'x' * (60 << 20); time.sleep(60) # {marker}"
    found = python(service, code, limits=process.Limits(memory_bytes=150 << 20))
    assert found.reason == "memory"


def test_a_program_within_its_memory_is_left_alone(service: ProcessService) -> None:
    code = "b = b'x' * (50 << 20); import subprocess\nfor _ in range(50): subprocess.run(['/bin/true'])"
    assert python(service, code, limits=process.Limits(memory_bytes=100 << 20)).reason == "exited"


# --- ends


def test_time_up_is_an_answer_with_what_was_written_until_then(service: ProcessService, marker: str) -> None:
    found = shell(service, f"echo before; exec sleep {marker}", timeout_s=0.2)
    assert (found.reason, found.signal, found.exit_code) == ("timeout", signal.SIGTERM, None)
    assert found.stdout == b"before\n"


def test_a_program_may_tidy_up_within_the_grace_time(make_service: MakeService, wait_until: WaitUntil) -> None:
    service = make_service(grace_s=30)
    found = shell(service, "trap 'echo tidy; exit 7' TERM; while :; do sleep 0.02; done", timeout_s=0.3)
    assert (found.reason, found.exit_code, found.stdout) == ("timeout", 7, b"tidy\n")


def test_the_grace_time_is_for_children_too(make_service: MakeService) -> None:
    service = make_service(grace_s=30)
    child = "trap 'sleep 0.3; echo tidy; exit' TERM; while :; do sleep 0.02; done"
    found = shell(service, f"({child}) & exec sleep 1000", timeout_s=0.3)
    assert (found.reason, found.signal, found.stdout) == ("timeout", signal.SIGTERM, b"tidy\n")


def test_a_program_that_ignores_sigterm_is_killed_after_the_grace_time(service: ProcessService) -> None:
    found = shell(service, STUBBORN, timeout_s=0.3)
    assert (found.reason, found.signal, found.stdout) == ("timeout", signal.SIGKILL, b"ready\n")


def test_without_grace_a_program_is_killed_at_once(make_service: MakeService) -> None:
    found = shell(make_service(grace_s=0), STUBBORN, timeout_s=0.3)
    assert (found.reason, found.signal) == ("timeout", signal.SIGKILL)


def test_a_stopped_program_goes_on_to_take_its_sigterm(service: ProcessService) -> None:
    found = shell(service, "kill -STOP $$", timeout_s=0.3)
    assert (found.reason, found.signal) == ("timeout", signal.SIGTERM)


def test_the_deadline_ends_the_program_and_is_an_error(service: ProcessService, marker: str) -> None:
    with pytest.raises(DeadlineExceeded):
        run(service, "/bin/sleep", marker, scope=Scope.lasting(0.3))


def test_a_call_that_is_late_or_cancelled_starts_nothing(service: ProcessService, root: Path) -> None:
    with pytest.raises(DeadlineExceeded):
        shell(service, "touch made", cwd="data:", scope=Scope.lasting(-1))
    scope = Scope.lasting(60)
    scope.cancelled.set()
    with pytest.raises(Cancelled):
        shell(service, "touch made", cwd="data:", scope=scope)
    assert not (root / "made").exists()


def test_a_cancel_from_another_thread_ends_the_tree(
    service: ProcessService, marker: str, bearers: Bearers, wait_until: WaitUntil
) -> None:
    scope = Scope.lasting(60)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(shell, service, f"sleep {marker} & sleep {marker}", scope=scope)
        wait_until(lambda: len(bearers()) >= 3)
        scope.cancelled.set()
        with pytest.raises(Cancelled):
            running.result(30)
    scope.cancelled.set()


def test_closing_the_service_ends_what_runs(
    service: ProcessService, marker: str, bearers: Bearers, wait_until: WaitUntil
) -> None:
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(run, service, "/bin/sleep", marker) for _ in range(2)]
        wait_until(lambda: len(bearers()) == 2)
        service.close()
        assert bearers() == []
        for each in running:
            found = each.result(30)
            assert (found.reason, found.signal) == ("worker_stopped", signal.SIGTERM)
    service.close()


def test_a_closed_service_starts_nothing(service: ProcessService, root: Path) -> None:
    service.close()
    with pytest.raises(StartFailed, match="the worker is stopping"):
        shell(service, "touch made", cwd="data:")
    assert not (root / "made").exists()


# --- what is left of a tree


def test_a_child_that_holds_the_pipe_does_not_hold_the_call(service: ProcessService, marker: str) -> None:
    found = shell(service, f"sleep {marker} & echo done")
    assert (found.reason, found.exit_code, found.stdout) == ("exited", 0, b"done\n")


def test_a_child_that_floods_the_pipe_does_not_hold_the_call(service: ProcessService) -> None:
    found = shell(service, "yes & sleep 0.1", limits=process.Limits(output_bytes=1 << 24))
    assert found.reason in {"exited", "output"}
    assert found.stdout.startswith(b"y\n")


def test_a_program_that_closes_its_output_is_still_waited_for(service: ProcessService) -> None:
    found = shell(service, "exec >&- 2>&-; sleep 0.2; exit 5")
    assert (found.reason, found.exit_code) == ("exited", 5)


def test_an_orphan_in_the_session_is_killed(service: ProcessService, marker: str) -> None:
    found = shell(service, f"(sleep {marker} & sleep {marker} &); echo done")
    assert (found.reason, found.stdout) == ("exited", b"done\n")


@pytest.mark.parametrize("timeout_s", [0.5, 30])
def test_a_child_in_a_session_of_its_own_is_killed(service: ProcessService, marker: str, timeout_s: float) -> None:
    end = f"exec sleep {marker}" if timeout_s < 1 else "sleep 0.3"
    found = shell(
        service, f"setsid sh -c 'trap \"\" TERM; sleep {marker}; sleep {marker}' & {end}", timeout_s=timeout_s
    )
    assert found.reason == ("timeout" if timeout_s < 1 else "exited")


def test_a_tree_that_keeps_forking_is_killed(service: ProcessService, marker: str) -> None:
    loop = f"while :; do sh -c 'sleep 0.01; : {marker}' & sleep 0.005; done"
    found = shell(service, f"trap '' TERM; ({loop}) & ({loop}) & {loop}", timeout_s=0.5)
    assert (found.reason, found.signal) == ("timeout", signal.SIGKILL)
