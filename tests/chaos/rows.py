"""The rows of the table: each is a fault, injected again and again under load."""

import random
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gaia.contracts.base import Call
from tests.chaos.field import Account, Field, wait_until_held, wait_until_idle
from tests.chaos.operation import QUEUES, Mark, MarkB, MarkC
from tests.chaos.proxy import Link, Proxy
from tests.chaos.workers import THREADS, Worker

LEASE_S: Final = 6.0


@dataclass(frozen=True)
class Scale:
    """How much of it."""

    tasks: int
    kills: int

    def part(self, share: float, least: int) -> int:
        return max(least, round(self.tasks * share))

    def faults(self, share: float, least: int) -> int:
        return max(least, round(self.kills * share))


Row = Callable[[Path, Scale], Account]
ROWS: Final[dict[str, Row]] = {}


def row(name: str) -> Callable[[Row], Row]:
    def enter(found: Row) -> Row:
        ROWS[name] = found
        return found

    return enter


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def _killed(kind: str, directory: Path, scale: Scale) -> Account:
    with Field(f"SIGKILL, {kind}", directory) as field:
        field.preload(scale.tasks)
        for _ in range(scale.kills):
            worker = field.worker(kind)
            worker.wait_first_end()
            pause(random.uniform(0, 0.02))
            worker.kill()
            field.fault()
        # What is left of the load runs now, so the bound covers it: 200 calls a second and worker.
        field.account.bound_s += scale.tasks / 400
        return field.settle(kind=kind)


@row("kill")
def kill(directory: Path, scale: Scale) -> Account:
    """SIGKILL 0 to 20 ms after a worker's first completion."""
    return _killed("ours", directory, scale)


@row("kill-stock")
def kill_stock(directory: Path, scale: Scale) -> Account:
    """The same with stock Celery: threads, acks_late, visibility time-out 5 s, restore interval 1 s."""
    return _killed("stock", directory, scale)


@row("pause")
def pause_worker(directory: Path, scale: Scale) -> Account:
    """SIGSTOP for longer than the lease, then SIGCONT, while two other workers go on."""
    with Field("SIGSTOP and SIGCONT, longer than the lease", directory) as field:
        workers = [field.worker().wait_ready() for _ in range(3)]
        times = scale.faults(0.02, 1)
        field.produce(scale.part(0.1, 200), scale.part(0.1, 200) / (times * (LEASE_S + 4)))
        for number in range(times):
            victim = workers[number % 3]
            victim.send(signal.SIGSTOP)
            pause(LEASE_S + random.uniform(1, 3))
            victim.send(signal.SIGCONT)
            field.fault()
            pause(1)
        return field.settle(workers=3)


@row("terminate")
def terminate(directory: Path, scale: Scale) -> Account:
    """SIGTERM under load, and a new worker for each that went."""
    with Field("SIGTERM under load", directory) as field:
        workers = [field.worker().wait_ready() for _ in range(2)]
        times = scale.faults(0.2, 4)
        field.produce(scale.part(0.2, 300), 300, make=_slower)
        for number in range(times):
            pause(random.uniform(0.1, 0.6))
            code = workers[number % 2].stop()
            if code:
                field.account.notes.append(f"exit code {code}")
            field.fault()
            workers[number % 2] = field.worker().wait_ready()
        return field.settle()


def _slower(number: int) -> tuple[Call[Any], int]:
    return Mark(number, run_s=0.02), 0


@row("server-kill")
def server_kill(directory: Path, scale: Scale) -> Account:
    """SIGKILL of Redis under load (appendfsync always), and its restart 0 to 4 s later."""
    return _server_away("SIGKILL of Redis, appendfsync always", directory, scale, "kill")


@row("server-stop")
def server_stop(directory: Path, scale: Scale) -> Account:
    """An orderly restart of Redis under load (appendfsync everysec)."""
    return _server_away("restart of Redis, appendfsync everysec", directory, scale, "stop")


def _server_away(name: str, directory: Path, scale: Scale, how: str) -> Account:
    fsync = "always" if how == "kill" else "everysec"
    # Celery tries to reconnect after 2 s, then 4, then 6 ...
    with Field(name, directory, appendfsync=fsync, bound_s=20) as field:
        for _ in range(2):
            field.worker().wait_ready()
        times = scale.faults(0.03, 1)
        field.produce(scale.part(0.1, 300), scale.part(0.1, 300) / (times * 6))
        for _ in range(times):
            pause(random.uniform(1, 3))
            field.server.kill() if how == "kill" else field.server.shut_down()
            pause(random.uniform(0, 4))
            field.server.start()
            field.fault()
        return field.settle()


@row("cut-worker")
def cut_worker(directory: Path, scale: Scale) -> Account:
    """Every connection of the workers reset, again and again."""
    with Field("reset between worker and Redis", directory, bound_s=20) as field:
        proxy = field.proxy()
        for _ in range(2):
            field.worker(url=proxy.url).wait_ready()
        times = scale.faults(0.1, 3)
        field.produce(scale.part(0.1, 300), scale.part(0.1, 300) / (times * 1.5))
        for _ in range(times):
            pause(random.uniform(0.2, 2.0))
            proxy.cut()
            field.fault()
        return field.settle()


@row("silent-worker")
def silent_worker(directory: Path, scale: Scale) -> Account:
    """Half-open: the workers' connections carry nothing more and are never closed; new ones do."""
    with Field("half-open between worker and Redis", directory, bound_s=30) as field:
        proxy = field.proxy()
        for _ in range(2):
            field.worker(url=proxy.url).wait_ready()
        times = scale.faults(0.01, 1)
        field.produce(scale.part(0.05, 200), scale.part(0.05, 200) / (times * 10))
        for number in range(times):
            pause(2)
            proxy.go_silent(new_ones=number % 2 == 1)
            pause(8)
            proxy.heal()
            field.fault()
        return field.settle()


@row("cut-producer")
def cut_producer(directory: Path, scale: Scale) -> Account:
    """The producers' connections reset, and once half-open; a submit that fails is uncertain."""
    with Field("reset between producer and Redis", directory) as field:
        proxy = field.proxy()
        field.worker().wait_ready()
        times = scale.faults(0.1, 3)
        for _ in range(4):
            field.produce(scale.part(0.025, 100), scale.part(0.025, 100) / (times * 0.5), url=proxy.url)
        for _ in range(times):
            pause(random.uniform(0.1, 0.8))
            proxy.cut()
            field.fault()
        proxy.go_silent()
        field.fault()
        return field.settle()


@row("slow")
def slow(directory: Path, scale: Scale) -> Account:
    """Each command takes 50 to 200 ms to arrive."""
    with Field("slow Redis, 50 to 200 ms a command", directory, bound_s=30) as field:
        proxy = field.proxy()
        for _ in range(2):
            field.worker(url=proxy.url).wait_ready()
        proxy.delay_s = lambda: random.uniform(0.05, 0.2)
        field.produce(scale.part(0.01, 60), 20)
        return field.settle()


@row("step")
def step(directory: Path, scale: Scale) -> Account:
    """A worker dies right before, or right behind, its k-th command, k from 1 on; then its connections are reset."""
    with Field("a worker dies, or is cut off, at its k-th command", directory) as field:
        proxy = field.proxy()
        last = min(40, scale.faults(0.2, 6))
        for how in ("die before", "die behind", "cut before", "cut behind"):
            for k in range(1, last + 1, 1 if last > 10 else 2):
                _stop_at(field, proxy, how, k)
        return field.settle()


def _stop_at(field: Field, proxy: Proxy, how: str, k: int) -> None:
    worker = field.worker(url=proxy.url).wait_ready()
    seen = 0
    done = threading.Event()

    def strike(link: Link) -> None:
        done.set()
        if how.startswith("die"):
            worker.send(signal.SIGKILL)
        else:
            link.cut()

    def before(link: Link, _: bytes) -> bool:
        nonlocal seen
        seen += 1
        if seen == k and how.endswith("before"):
            strike(link)
            return False
        return True

    def after(link: Link, _: bytes) -> None:
        if seen >= k and how.endswith("behind") and not done.is_set():
            strike(link)
            link.silent = True

    proxy.before, proxy.after = before, after
    field.produce(4, 1000)
    done.wait(3)
    field.fault()
    proxy.before, proxy.after = (lambda *_: True), (lambda *_: None)
    if how.startswith("cut"):
        pause(0.3)
    worker.kill()


@row("mixed")
def mixed(directory: Path, scale: Scale) -> Account:
    """A stock worker and ours on one queue; ours are killed, the stock one (which loses messages then) is not."""
    with Field("stock worker and producer beside ours, ours killed", directory) as field:
        field.worker("stock").wait_ready()
        times = scale.faults(0.1, 3)
        # More than the stock worker can do alone.
        field.produce(scale.part(0.1, 300), 150)
        for _ in range(times):
            worker = field.worker().wait_ready()
            pause(random.uniform(0, 0.4))
            worker.kill()
            field.fault()
        return field.settle()


@row("queues")
def queues(directory: Path, scale: Scale) -> Account:
    """Three queues, four priorities, three workers with overlapping queues, one killed now and then."""
    with Field("3 workers on 3 queues with priorities, killed", directory) as field:
        plans = [QUEUES, QUEUES[:2], QUEUES[1:]]
        workers: list[Worker] = [field.worker(queues=plan).wait_ready() for plan in plans]
        times = scale.faults(0.1, 3)
        field.produce(scale.part(0.1, 300), scale.part(0.1, 300) / times, make=_spread)
        for number in range(times):
            pause(random.uniform(0.1, 0.6))
            workers[number % 3].kill()
            field.fault()
            workers[number % 3] = field.worker(queues=plans[number % 3]).wait_ready()
        return field.settle(workers=3, queues=QUEUES)


@row("healthy")
def healthy(directory: Path, scale: Scale) -> Account:
    """Calls of a minute, ten leases long, on a worker that lives, while others come and are killed: none runs twice."""
    with Field("SIGKILL of others beside healthy calls of 60 s", directory, bound_s=75) as field:
        field.worker(queues=QUEUES[:1]).wait_ready()
        field.produce(THREADS, 1000, make=_minute)
        wait_until_held(field.server.client, THREADS)
        for _ in range(scale.faults(0.03, 2)):
            other = field.worker(queues=QUEUES).wait_ready()
            pause(random.uniform(1, 5))
            other.kill()
            field.fault()
        return field.settle()


def _minute(number: int) -> tuple[Call[Any], int]:
    return Mark(number, run_s=60.0), 0


def _spread(number: int) -> tuple[Call[Any], int]:
    return (Mark, MarkB, MarkC)[number % 3](number, run_s=0.05), number % 10


@row("turmoil")
def turmoil(directory: Path, scale: Scale) -> Account:
    """Scripts flushed, connections killed by the server, writes paused, memory full, and connections killed then."""
    faults = "scripts flushed, clients killed, writes paused, memory full, both at once"
    with Field(faults, directory, bound_s=20) as field:
        for _ in range(2):
            field.worker().wait_ready()
        times = scale.faults(0.1, 5)
        field.produce(scale.part(0.1, 300), scale.part(0.1, 300) / (times * 0.9))
        for number in range(times):
            pause(random.uniform(0.1, 0.5))
            _disturb(field, number % 5)
            field.fault()
        if not field.fallen():
            wait_until_idle(field.server.client)
        return field.settle()


def _disturb(field: Field, number: int) -> None:
    client = field.server.client
    if number == 0:
        client.script_flush()
    elif number == 1:
        client.client_kill_filter(_type="normal", skipme=True)
    elif number == 2:
        client.client_pause(500, all=False)
    else:
        client.config_set("maxmemory", "1mb")
        if number == 4:
            client.client_kill_filter(_type="normal", skipme=True)
        pause(1)
        client.config_set("maxmemory", "0")
