import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import redis

from config import settings
from gaia.contracts import process
from gaia.errors import Cancelled, InvalidCall, ProcessMissing
from gaia.store.limits import Limit
from tasks.limits.ahead import Ahead
from tasks.limits.cluster import Limits
from tasks.limits.memory import MemoryBreaker, MemoryLeases, MemoryTokens
from tasks.limits.policy import Policy
from tasks.process.launcher import tree
from tasks.process.launcher.spawn import OOM_SCORE
from tasks.process.quotas import Quotas
from tasks.process.registry import Record, Registry, machine, record
from tasks.process.service import ProcessService
from tasks.runtime.identity import Identity
from tasks.scope import Later, Scope
from tests.support.waiting import until
from tests.unit.process.running import Bearers, MakeService, run, shell

NOBODY = "nobody@here.0123456789abcdef.0123456789abcdef0123456789abcdef"


@pytest.fixture
def service(marker: str, make_service: MakeService) -> ProcessService:
    """A service that is closed before its programs are looked for."""
    return make_service()


@pytest.fixture
def scope() -> Scope:
    return Scope.lasting(60)


LimitsOf = Callable[[MemoryLeases, dict[str, Limit]], Limits]


@pytest.fixture
def limits_of() -> Iterator[LimitsOf]:
    """Give what makes limits in memory; they are closed at the end."""
    made: list[Limits] = []

    def make(leases: MemoryLeases, given: dict[str, Limit]) -> Limits:
        policy = Policy(settings.Limits(), given)
        made.append(Limits(Ahead(MemoryTokens()), leases, MemoryBreaker(), policy=policy))
        return made[-1]

    yield make
    for each in made:
        each.close()


def start(service: ProcessService, script: str, **fields: object) -> process.Started:
    call = process.Start(("/bin/sh", "-c", script), **fields)  # type: ignore[arg-type]  # any field
    return service.start(call, Scope.lasting(60))


def ended(service: ProcessService, program_id: str) -> process.Exited:
    scope = Scope.lasting(60)

    def look() -> process.Exited | None:
        with suppress(Later):
            return service.wait(process.Wait(program_id, timeout_s=60), scope).exited
        return None

    return until(look, 60)


def test_a_program_outlives_the_call_that_started_it(service: ProcessService, marker: str, bearers: Bearers) -> None:
    started = start(service, f"sleep {marker}; true")
    until(lambda: len(bearers()) == 2)
    found = service.status(process.Status(started.id), Scope.lasting(5))
    assert (found.running, found.exited, found.pid, found.program) == (True, None, started.pid, "/bin/sh")
    assert started.worker == found.worker == "tests@here"
    assert psutil.Process(started.pid).cmdline()[0] == "/bin/sh"
    assert found.memory_bytes > 0
    assert found.processes == 2


def test_its_end_is_remembered_and_then_forgotten(service: ProcessService, scope: Scope) -> None:
    started = start(service, "echo out; echo err >&2; exit 5")
    found = ended(service, started.id)
    assert (found.exit_code, found.reason, found.stdout, found.stderr) == (5, "exited", b"out\n", b"err\n")
    assert service.status(process.Status(started.id), scope).exited == found
    assert service.cleanup(process.Cleanup(started.id), scope).forgotten == 1
    with pytest.raises(ProcessMissing):
        service.status(process.Status(started.id), scope)


def test_a_program_that_runs_is_not_forgotten(service: ProcessService, scope: Scope, marker: str) -> None:
    started = start(service, f"sleep {marker}")
    assert service.cleanup(process.Cleanup(), scope).forgotten == 0
    assert service.status(process.Status(started.id), scope).running


def test_a_wait_that_would_be_long_gives_its_slot_back_and_ends_in_time(service: ProcessService, marker: str) -> None:
    started = start(service, f"sleep {marker}")
    with pytest.raises(Later):
        service.wait(process.Wait(started.id), Scope.lasting(60))
    call, scope = process.Wait(started.id, timeout_s=4), replace(Scope.lasting(60), id="another")
    states: list[process.State] = []

    def look() -> bool:
        with suppress(Later):
            states.append(service.wait(call, scope))
        return bool(states)

    assert not look()
    until(look)
    assert states[0].running


def test_output_is_read_from_an_offset_while_the_program_runs(service: ProcessService, scope: Scope) -> None:
    started = start(service, r"printf 'a\000\377'; read line; printf done; cat", stdin_open=True)
    first = service.output(process.Output(started.id, wait_s=10), scope)
    assert (first.data, first.offset, first.next_offset, first.ended) == (b"a\0\xff", 0, 3, False)
    assert service.output(process.Output(started.id, offset=3), scope).data == b""
    assert service.write(process.Write(started.id, b"go\nrest"), scope) == process.Accepted(7, closed=False)
    more = service.output(process.Output(started.id, offset=3, wait_s=10), scope)
    assert more.data.startswith(b"d")
    assert service.write(process.Write(started.id, close=True), scope).closed
    assert ended(service, started.id).stdout == b"a\0\xffdonerest"
    last = service.output(process.Output(started.id, offset=3, max_bytes=4), scope)
    assert (last.data, last.ended) == (b"done", False)
    last = service.output(process.Output(started.id, offset=7), scope)
    assert (last.data, last.ended) == (b"rest", True)


def test_of_much_output_the_last_is_kept(make_service: MakeService, scope: Scope) -> None:
    service = make_service(output_bytes=1000)
    started = start(service, "seq 1 100000")
    found = ended(service, started.id)
    assert (found.reason, found.truncated, len(found.stdout)) == ("exited", True, 1000)
    assert found.stdout.endswith(b"99999\n100000\n")
    chunk = service.output(process.Output(started.id), scope)
    assert chunk.offset > 0
    assert chunk.next_offset == found.stdout_bytes == 588_895
    assert chunk.ended


def test_a_gibibyte_passes_and_the_last_of_it_is_kept(service: ProcessService) -> None:
    found = ended(service, start(service, "head -c 1073741824 /dev/zero; printf end").id)
    assert (found.reason, found.stdout_bytes, len(found.stdout)) == ("exited", (1 << 30) + 3, 1 << 20)
    assert found.stdout.endswith(b"\0end")


def test_a_flood_ends_a_program_only_if_the_call_says_so(service: ProcessService) -> None:
    started = start(service, "exec yes", limits=process.Limits(output_bytes=10_000))
    assert ended(service, started.id).reason == "output"


def test_stdin_takes_no_more_than_there_is_room_for(service: ProcessService, scope: Scope, marker: str) -> None:
    started = start(service, f"sleep {marker}", stdin_open=True)
    sizes = [
        service.write(process.Write(started.id, bytes(900_000), timeout_s=0.05), scope).size_bytes for _ in range(3)
    ]
    assert sizes[0] == 900_000
    assert sizes[-1] == 0
    assert sum(sizes) <= process.WRITE_BYTES + (1 << 17)


def test_stdin_that_is_closed_takes_nothing(service: ProcessService, scope: Scope, marker: str) -> None:
    started = start(service, f"sleep {marker}")
    with pytest.raises(InvalidCall, match="closed"):
        service.write(process.Write(started.id, b"x"), scope)


def test_a_signal_reaches_the_program_or_its_tree(service: ProcessService, scope: Scope, marker: str) -> None:
    started = start(service, f"trap 'echo hup; exit 3' HUP; echo ready; sleep {marker} & wait")
    service.output(process.Output(started.id, wait_s=10), scope)
    service.signal(process.Signal(started.id, signal.SIGHUP), scope)
    found = ended(service, started.id)
    assert (found.exit_code, found.reason, found.stdout) == (3, "exited", b"ready\nhup\n")
    service.signal(process.Signal(started.id, signal.SIGHUP), scope)
    started = start(service, f"sleep {marker} & sleep {marker}")
    service.signal(process.Signal(started.id, signal.SIGUSR1, tree=True), scope)
    assert (ended(service, started.id).reason, ended(service, started.id).signal) == ("signal", signal.SIGUSR1)


def test_terminate_gives_grace_and_kill_does_not(service: ProcessService, scope: Scope, marker: str) -> None:
    stubborn = f"trap '' TERM; echo ready; while :; do sleep {marker}; done"
    for call, number in ((process.Terminate, signal.SIGKILL), (process.Kill, signal.SIGKILL)):
        started = start(service, stubborn)
        service.output(process.Output(started.id, wait_s=10), scope)
        options = {"grace_s": 0.2} if call is process.Terminate else {}
        act = service.terminate if call is process.Terminate else service.kill
        found = act(call(started.id, **options), scope).exited  # type: ignore[arg-type,operator]
        assert (found.reason, found.signal) == ("cancelled", number)
    started = start(service, "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done")
    service.output(process.Output(started.id, wait_s=10), scope)
    found = service.terminate(process.Terminate(started.id, grace_s=20), scope).exited
    assert (found.reason, found.exit_code) == ("cancelled", 7)


def test_the_time_of_a_started_program_is_bounded(service: ProcessService, marker: str) -> None:
    started = start(service, f"sleep {marker}", timeout_s=0.3)
    assert ended(service, started.id).reason == "timeout"


def test_closing_the_service_ends_what_is_kept_and_tells_who_waits(
    service: ProcessService, marker: str, bearers: Bearers
) -> None:
    started = start(service, f"trap 'echo bye; exit 2' TERM; echo ready; sleep {marker} & wait")
    service.output(process.Output(started.id, wait_s=10), Scope.lasting(20))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ended, service, started.id)
        service.close()
        found = waiting.result(20)
    assert (found.reason, found.exit_code, found.stdout) == ("worker_stopped", 2, b"ready\nbye\n")
    assert bearers() == []


def test_an_id_of_nothing_is_missing(service: ProcessService, scope: Scope) -> None:
    for call in (process.Status, process.Wait, process.Output, process.Kill, process.Terminate):
        act: Callable[..., object] = getattr(service, call.OPERATION.partition(".")[2])
        with pytest.raises(ProcessMissing):
            act(call(NOBODY), scope)


def test_every_place_taken_sends_calls_back(make_service: MakeService, marker: str) -> None:
    service = make_service(concurrency=1)
    started = start(service, f"sleep {marker}")
    with pytest.raises(Later):
        start(service, "true")
    with pytest.raises(Later):
        shell(service, "true")
    service.kill(process.Kill(started.id), Scope.lasting(20))
    assert until(lambda: _ran(service)).exit_code == 0


def _ran(service: ProcessService) -> process.Exited | None:
    try:
        return shell(service, "true")
    except Later:
        return None


def test_a_profile_has_its_places_in_the_cluster(make_service: MakeService, limits_of: LimitsOf, marker: str) -> None:
    leases = MemoryLeases()
    profiles = {"scarce": {"concurrency": 1, "timeout_s": 30}}
    quotas = Quotas(limits_of(leases, {}))
    a, b = (make_service(parts={"quotas": quotas}, profiles=profiles) for _ in range(2))
    started = start(a, f"sleep {marker}", profile="scarce")
    with pytest.raises(Later):
        shell(b, "true", profile="scarce")
    assert shell(b, "true").exit_code == 0
    a.kill(process.Kill(started.id), Scope.lasting(20))
    until(lambda: leases.held("slots:pool:process:scarce") == 0)
    assert shell(b, "true", profile="scarce").exit_code == 0


def test_what_operators_set_for_a_profile_comes_before_its_settings(
    make_service: MakeService, limits_of: LimitsOf, marker: str
) -> None:
    leases = MemoryLeases()
    given = {"pool:process:default": Limit(concurrency=1), "pool:process:wide": Limit(concurrency=2)}
    quotas = Quotas(limits_of(leases, given))
    service = make_service(parts={"quotas": quotas}, profiles={"wide": {"concurrency": 1}, "default": {}})
    started = [start(service, f"sleep {marker}", profile=each) for each in ("default", "wide", "wide")]
    for profile in ("default", "wide"):
        with pytest.raises(Later):
            shell(service, "true", profile=profile)
    for each in started:
        service.kill(process.Kill(each.id), Scope.lasting(20))
    until(lambda: leases.held("slots:pool:process:wide") == leases.held("slots:pool:process:default") == 0)


def test_a_profile_that_is_not_there_is_refused_and_so_is_more_than_the_ceilings(make_service: MakeService) -> None:
    service = make_service(ceilings={"memory_bytes": 1 << 29, "timeout_s": 400})
    with pytest.raises(InvalidCall, match="profiles"):
        shell(service, "true", profile="other")
    with pytest.raises(InvalidCall, match="memory_bytes must be at most 536870912"):
        shell(service, "true", limits=process.Limits(memory_bytes=1 << 30))
    with pytest.raises(InvalidCall) as caught:
        shell(service, "true", timeout_s=401)
    assert caught.value.field == "timeout_s"


def test_the_progress_tells_bytes_and_the_last_line(service: ProcessService) -> None:
    told: list[tuple[float, str]] = []
    scope = Scope(
        id="x",
        operation="test",
        ends_at=Scope.lasting(60).ends_at,
        report=lambda done, _, note: told.append((done, note)),
    )
    call = process.Run(("/bin/sh", "-c", "echo one; echo two"), tail=True)
    service.run(call, scope)
    assert told[-1] == (8.0, "two")


def test_stats_count_ends_by_reason_and_health_says_what_is_missing(
    make_service: MakeService, scope: Scope, marker: str
) -> None:
    service = make_service(concurrency=1)
    shell(service, "echo four")
    shell(service, "exit 3")
    with pytest.raises(InvalidCall):
        shell(service, "true", profile="other")
    started = start(service, f"sleep {marker}")
    found = service.stats(process.Stats(), scope)
    assert (found.running, found.held, found.started, found.completed, found.failed) == (1, 1, 3, 1, 1)
    assert (found.refused, found.reasons, found.output_bytes) == (1, {"exited": 2}, 5)
    assert found.memory_bytes > 0
    health = service.health(process.Health(), scope)
    assert (health.status, "every place is taken" in health.findings) == ("degraded", True)
    service.kill(process.Kill(started.id), scope)


def test_memory_is_of_all_programs_and_of_no_keeper(service: ProcessService, scope: Scope, marker: str) -> None:
    def memory_bytes() -> int:
        return service.stats(process.Stats(), Scope.lasting(20)).memory_bytes

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(shell, service, f"sleep {marker}", scope=scope)
        until(lambda: memory_bytes() > 0)
        scope.cancelled.set()
        assert isinstance(running.exception(20), Cancelled)
    until(lambda: memory_bytes() == 0)  # a keeper that is just being made is below its maker for a moment


def test_the_registry_lists_what_runs_and_forgets_what_ended(
    make_service: MakeService, fresh_url: str, scope: Scope, marker: str
) -> None:
    with redis.Redis.from_url(fresh_url) as client:
        registry = Registry(client, fresh_url)
        service = make_service(parts={"registry": registry})
        started = start(service, f"sleep {marker}")
        (found,) = service.list(process.List(), scope).processes
        assert (found.id, found.pid, found.worker, found.lost) == (started.id, started.pid, "tests@here", True)
        assert found.pid_started > 0
        assert service.list(process.List(worker="other@here"), scope).processes == ()
        service.kill(process.Kill(started.id), scope)
        until(lambda: service.list(process.List(), scope).processes == ())
        client.connection_pool.disconnect()


def test_what_a_lost_worker_left_alive_is_killed_by_its_pid_and_start(fresh_url: str, marker: str) -> None:
    lost = Identity("lost@here")
    with redis.Redis.from_url(fresh_url) as client, ExitStack() as stack:
        registry = Registry(client, fresh_url)
        children = [subprocess.Popen(["setpriv", "--no-new-privs", "/bin/sleep", marker]) for _ in range(2)]
        for each in children:
            stack.callback(each.wait)
            stack.callback(each.kill)
        for number, each in enumerate(children):
            until(lambda each=each: b"sleep" in Path(f"/proc/{each.pid}/cmdline").read_bytes().split(b"\0")[0])
            Path(f"/proc/{each.pid}/oom_score_adj").write_text(str(OOM_SCORE))
            entry = entry_of(lost.hold(), lost.node, each.pid)
            assert entry.machine == machine()
            if number:
                entry = type(entry)(**{**vars(entry), "pid_started": entry.pid_started - 1})
            registry.enter(entry)
        cut_off = entry_of(NOBODY, "nobody@here", children[1].pid)
        registry.enter(replace(cut_off, owner_pid=os.getppid(), owner_started=started_of(os.getppid())))
        own = Identity("own@here")
        registry.enter(replace(cut_off, id=own.hold(), worker="own@here"))
        assert registry.sweep(own) == (2, 1)
        assert children[0].wait(10) == -signal.SIGKILL
        assert children[1].poll() is None
        assert {entry.worker for entry, _ in registry.list()} == {"nobody@here", "own@here"}
        client.connection_pool.disconnect()


def test_a_process_that_is_no_program_is_not_killed_whoever_names_it(fresh_url: str, marker: str) -> None:
    with redis.Redis.from_url(fresh_url) as client, subprocess.Popen(["/bin/sleep", marker]) as bystander:
        registry = Registry(client, fresh_url)
        registry.enter(entry_of(NOBODY, "nobody@here", bystander.pid))
        assert registry.sweep(Identity("own@here")) == (1, 0)
        assert bystander.poll() is None
        bystander.kill()
        client.connection_pool.disconnect()


def entry_of(program_id: str, worker: str, pid: int) -> Record:
    return record(program_id, worker, pid, tree.stat(pid), program="/bin/sleep", profile="default")


def started_of(pid: int) -> int:
    found = tree.stat(pid)
    assert found is not None
    return found.start


def test_a_first_start_sweeps_the_list(make_service: MakeService, fresh_url: str, scope: Scope, marker: str) -> None:
    with redis.Redis.from_url(fresh_url) as client:
        registry = Registry(client, fresh_url)
        registry.enter(replace(entry_of(NOBODY, "nobody@here", 2**22), machine="another"))
        service = make_service(parts={"registry": registry})
        started = start(service, f"sleep {marker}")
        until(lambda: [each.id for each in service.list(process.List(), scope).processes] == [started.id])
        service.kill(process.Kill(started.id), scope)
        until(lambda: service.list(process.List(), scope).processes == ())
        client.connection_pool.disconnect()


def test_a_start_is_kept_whole_or_not_at_all(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch, marker: str, bearers: Bearers
) -> None:
    service = make_service(concurrency=1)
    monkeypatch.setattr(Identity, "hold", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        start(service, f"sleep {marker}")
    monkeypatch.undo()
    until(lambda: bearers() == [])
    assert until(lambda: _ran(service)).exit_code == 0


def test_many_programs_at_once_take_one_thread(service: ProcessService, marker: str) -> None:
    started = [start(service, f"exec sleep {marker}") for _ in range(20)]
    assert len({each.pid for each in started}) == 20
    assert service.stats(process.Stats(), Scope.lasting(20)).held == 20
    for each in started:
        service.kill(process.Kill(each.id), Scope.lasting(20))


def test_no_network_leaves_a_loopback_that_is_down(service: ProcessService) -> None:
    if os.geteuid() != 0:
        pytest.skip("NOT RUN: a network namespace needs root here")
    code = "import os; print(sorted(os.listdir('/sys/class/net')), open('/proc/net/dev').read().count(':'))"
    found = run(service, sys.executable, "-c", code, limits=process.Limits(network=False))
    assert found.exit_code == 0
    assert found.stdout.strip().endswith(b"1")
    assert run(service, sys.executable, "-c", "print(1)").stdout == b"1\n"


def test_a_program_gains_no_privileges_and_is_the_first_to_go_when_memory_runs_out(service: ProcessService) -> None:
    found = shell(service, "grep NoNewPrivs /proc/self/status; cat /proc/self/oom_score_adj; ulimit -n -f -c")
    lines = found.stdout.decode().split()
    assert lines[:2] == ["NoNewPrivs:", "1"]
    assert lines[2] == "800"


def test_limits_of_files_and_descriptors_hold(service: ProcessService) -> None:
    found = shell(
        service,
        "ulimit -n; head -c 100000 /dev/zero > file; echo $?",
        limits=process.Limits(open_files=64, file_bytes=1024),
    )
    assert found.stdout.split()[0] == b"64"
    assert found.stdout.split()[1] == b"153"  # 128 + SIGXFSZ
