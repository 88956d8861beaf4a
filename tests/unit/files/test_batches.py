"""Batches: every step has its outcome, in order, whether its writes go together or not."""

import errno
import os
import stat
import threading
from typing import Any

import pytest

from gaia.contracts import files
from gaia.errors import (
    BodyTooLarge,
    Cancelled,
    FileFailed,
    FileMissing,
    PathDenied,
    PoolExhausted,
    PreconditionFailed,
    QuotaExceeded,
)
from tasks import metrics
from tasks.files import batches, together
from tasks.files.service import FilesService
from tasks.scope import Scope
from tests.unit.files.conftest import Door


def errors(found: files.Batched) -> list[type[BaseException] | None]:
    """Give the kind of error of each step, None where it went well; a step that was not run has no place."""
    outcomes = [each for each in found.outcomes() if each is not None]
    return [None if each.ok else type(each.error) for each in outcomes]


def writes(count: int, **options: Any) -> list[files.Write]:
    return [files.Write(f"data:d{number % 3}/f{number}", b"%d" % number, **options) for number in range(count)]


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("count", [1, 5, 33, 200])
def test_many_writes_are_each_what_they_would_be_alone(door: Door, count: int, durable: bool) -> None:
    for _ in range(2):  # new files, then files that exist
        found = door(files.Batch.of(*writes(count, durable=durable)))
        assert errors(found) == [None] * count
        for number, each in enumerate(found.items):
            assert each.write == door.service.write(
                files.Write(f"data:d{number % 3}/f{number}", b"%d" % number), door.scope
            )
        assert sum(len(door.names(f"d{number}")) for number in range(min(3, count))) == count
    assert door(files.Stats()).by_operation[-1].successes == 4 * count


def test_later_steps_see_what_earlier_ones_wrote(door: Door) -> None:
    steps: list[Any] = []
    for number in range(40):
        steps += [files.Write("data:same", b"%d" % number), files.Write("data:other", b"")]
        steps += [files.Read("data:same"), files.Delete("data:other")] if number % 3 == 0 else []
    found = door(files.Batch.of(*steps))
    assert found.failed == 0
    reads = [each.read.body for each in found.items if each.read is not None]
    assert reads == [b"%d" % number for number in range(0, 40, 3)]
    assert door(files.Read("data:same")).body == b"39"


def test_a_failure_among_writes_stops_those_behind_it(door: Door) -> None:
    (door.root / "d").mkdir()
    (door.root / "d" / "taken").write_bytes(b"old")
    (door.root / "out").symlink_to("../outside")
    for bad, kind in (
        (files.Write("data:d/taken", b"new", if_absent=True), PreconditionFailed),
        (files.Write("data:out/x", b""), PathDenied),
        (files.Write("data:d/taken/x", b""), FileFailed),
        (files.Write("data:d/" + "n" * 256, b""), FileFailed),
        (files.Read("data:none"), FileMissing),
    ):
        steps = [files.Write(f"data:d/{number}", b"") for number in range(20)]
        steps[7:7] = [bad]  # type: ignore[list-item]
        found = door(files.Batch.of(*steps, stop_on_error=True))
        assert errors(found) == [None] * 7 + [kind], bad
        assert (found.failed, found.stopped, len(found.items)) == (1, True, 21)
        assert len(door.names("d")) == 8
        found = door(files.Batch.of(*steps))
        assert errors(found) == [None] * 7 + [kind] + [None] * 13
        assert len(door.names("d")) == 21
        for number in range(20):
            (door.root / "d" / str(number)).unlink()
    assert (door.root / "d" / "taken").read_bytes() == b"old"


def test_a_step_that_is_not_run_makes_no_directory(door: Door) -> None:
    steps = [files.Write("data:f", b""), files.Write("data:f", b"", if_absent=True), files.Write("data:new/f", b"")]
    assert door(files.Batch.of(*steps, stop_on_error=True)).stopped
    assert door.names() == ["f", "sub"]


def test_a_quota_and_a_condition_hold_within_a_batch(door: Door) -> None:
    steps = [files.Write(f"full:{number}", bytes(3000)) for number in range(5)]
    assert errors(door(files.Batch.of(*steps))) == [None] * 3 + [QuotaExceeded] * 2
    tag = door(files.Write("data:f", b"one")).etag
    steps = [files.Write("data:f", b"two", if_etag=tag), files.Write("data:f", b"three", if_etag=tag)]
    assert errors(door(files.Batch.of(*steps))) == [None, PreconditionFailed]


def test_a_batch_that_is_cancelled_leaves_no_draft_and_no_thread(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    sink = together.Sink.write
    begun: list[int] = []

    def write(self: Any, chunk: Any) -> int:
        begun.append(1)
        if len(begun) == 50:
            door.scope.cancelled.set()
        return sink(self, chunk)

    monkeypatch.setattr(together.Sink, "write", write)
    with pytest.raises(Cancelled):
        door(files.Batch.of(*writes(500)))
    assert sum(len(door.names(f"d{number}")) for number in range(3)) < 100
    assert threading.active_count() == before


def test_a_directory_that_cannot_be_made_durable_fails_its_writes_alone(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("good", "bad"):
        (door.root / name).mkdir()
    bad, real = (door.root / "bad").stat().st_ino, os.fsync

    def fsync(fd: int) -> None:
        if os.fstat(fd).st_ino == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    steps = [files.Write(f"data:{('good', 'bad')[number % 2]}/{number}", b"") for number in range(10)]
    found = door(files.Batch.of(*steps))
    assert errors(found) == [None, FileFailed] * 5
    steps = [files.Write(f"data:bad/n{number}", b"", durable=False) for number in range(10)]
    assert door(files.Batch.of(*steps)).failed == 0


def test_each_directory_is_made_durable_once_for_all_its_writes(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    door(files.Batch.of(*writes(3)))
    synced: list[bool] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(fd).st_mode))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    door(files.Batch.of(*writes(together.GROUP)))
    assert sorted(synced) == [False] * together.GROUP + [True] * 3


def test_a_group_takes_one_place_at_the_gate(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.files.meter.WAIT_S", 0.05)
    service = FilesService(roots=door.roots, max_operations=1)
    (door.root / "d").mkdir()
    steps = [files.Write(f"data:d/{number}", b"") for number in range(10)]
    assert service.batch(files.Batch.of(*steps), door.scope).failed == 0
    assert service.stats(files.Stats(), door.scope).peak == 1
    with service._meter.operation("read", door.scope):
        assert errors(service.batch(files.Batch.of(*steps), Scope.lasting(60))) == [PoolExhausted] * 10
        found = service.batch(files.Batch.of(*steps, stop_on_error=True), Scope.lasting(60))
        assert errors(found) == [PoolExhausted]


def test_a_batch_gives_no_more_than_one_call_may(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BODY_LIMIT_BYTES", 1500)
    door(files.Write("data:f", bytes(1000)))
    steps = [files.Read("data:f"), files.Tail("data:f"), files.Stat("data:f"), files.List("data:")]
    found = door(files.Batch.of(*steps))
    assert errors(found) == [None, BodyTooLarge, None, BodyTooLarge]


def test_what_a_batchs_threads_use_counts_as_its_operation(door: Door) -> None:
    scope = Scope.lasting(60, operation=f"test.batch_{door.root.parent.name}")
    found = door.service.batch(files.Batch.of(*writes(33, durable=True)), scope)
    assert errors(found) == [None] * 33
    assert metrics.meters(scope.operation).cpu_s > 0
