"""Writes of a batch that follow one another: written together, named in their order, and made durable together.

The contents go into drafts, durable ones in a few threads at once, each with its own fsync before it has a name; then
each takes its name in its turn, so that what a reader sees comes in the order of the steps and a failure stops what is
behind it; then each directory gets one fsync for all. So a durable batch promises what durable writes promise, once it
is answered.

A write joins if nothing before it can matter to it: it has no etag to compare and its root no quota, its directory is
there, and no other write of the group has its name.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from time import thread_time
from types import TracebackType
from typing import Final, Self

from gaia.codec import content
from gaia.contracts import files
from gaia.contracts.files import Item
from gaia.errors import Cancelled, DeadlineExceeded, GaiaError
from tasks import metrics
from tasks.files.drafts import Draft, Sink
from tasks.files.meter import Meter
from tasks.files.writing import Writer, publish
from tasks.roots.roots import Roots, ours, split, translated
from tasks.scope import Scope

GROUP: Final = 32
"""Writes of one group: each holds a descriptor."""

THREADS: Final = max(2, min(4, os.cpu_count() or 1))
"""What writes at once for one batch: more gain nothing but turns of the interpreter's lock."""

_ANY: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_ALONE: Final = 4
"""So few fsyncs are left to the batch's own thread, as is whatever is not durable: it waits for nothing, and threads
would only take turns at the interpreter's lock (on tmpfs 64 ms a thousand writes instead of 47, and twice the CPU)."""


@dataclass
class _Write:
    """A write of a group: where it goes, and what became of it."""

    call: files.Write
    directory: int
    name: str
    begun_s: float = 0.0
    draft: Draft | None = None
    sink: Sink | None = None
    failure: Exception | None = None


class Together:
    """What groups of writes are made with; it owns nothing."""

    def __init__(self, roots: Roots, writer: Writer, meter: Meter) -> None:
        """Take the roots, what locks names, and the gate."""
        self.roots: Final = roots
        self.writer: Final = writer
        self.meter: Final = meter

    def group(self, scope: Scope, *, stop_on_error: bool) -> "Group":
        """Give the groups of one batch, one after the other; a context manager."""
        return Group(self, scope, stop_on_error=stop_on_error)


class Group:
    """The writes of one batch that wait for being done together. Of one thread."""

    def __init__(self, around: Together, scope: Scope, *, stop_on_error: bool) -> None:
        """Begin with none."""
        self._around = around
        self._scope = scope
        self._stop_on_error = stop_on_error
        self._writes: list[_Write] = []
        self._taken: set[tuple[int, str]] = set()
        self._directories: dict[str, int] = {}
        self._opened = ExitStack()
        self._pool: ThreadPoolExecutor | None = None
        self._replaced: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Forget what was not done, and end the threads."""
        self._clear()
        self._let_go()
        if self._pool is not None:
            self._pool.shutdown()

    @property
    def full(self) -> bool:
        """Say whether it is to be done now."""
        return len(self._writes) >= GROUP

    def add(self, call: files.Write) -> bool:
        """Take a write in, if it can be one of the group; False if it must be done by itself, behind the group."""
        roots = self._around.roots
        if call.if_etag is not None or roots.quota(call.path) is not None:
            return False
        try:
            root, parts = split(call.path)
            if not parts:
                return False
            directory = self._directory(f"{root}:{'/'.join(parts[:-1])}")
        except GaiaError:
            return False  # it fails by itself, in its turn; or its directory is to be made then
        if (directory, parts[-1]) in self._taken:
            return False
        self._taken.add((directory, parts[-1]))
        self._writes.append(_Write(call, directory, parts[-1]))
        return True

    def done(self) -> list[Item]:
        """Do what was taken in, and give an item for each, in order; behind one that stops the batch, empty ones.

        Raises:
            Cancelled, DeadlineExceeded: what has its name by then keeps it.
        """
        if not self._writes:
            return []
        try:
            return self._through_the_gate(self._writes)
        finally:
            self._clear()

    def _through_the_gate(self, writes: list[_Write]) -> list[Item]:
        meter = self._around.meter
        try:
            meter.enter(self._scope)
        except (Cancelled, DeadlineExceeded):
            raise
        except GaiaError as error:
            full = Item(error=error)
            return [full, *([Item()] if self._stop_on_error else [full]) * (len(writes) - 1)]
        try:
            with ExitStack() as drafts:
                self._prepare(writes, drafts)
                self._scope.check()
                items = [self._named(each) for each in writes] if not self._stop_on_error else self._named_in_turn()
            return self._synced(writes, items)
        finally:
            self._let_go()
            meter.leave()

    def _directory(self, path: str) -> int:
        found = self._directories.get(path)
        if found is None:
            found = self._directories[path] = self._opened.enter_context(self._around.roots.directory(path))
        return found

    def _clear(self) -> None:
        self._writes = []
        self._taken.clear()
        self._directories.clear()
        self._opened.close()

    # --- contents

    def _prepare(self, writes: list[_Write], drafts: ExitStack) -> None:
        """Write every content to a draft. What fails says so in its turn; what was written goes with `drafts`."""
        try:
            if sum(each.call.durable for each in writes) <= _ALONE:
                self._write_all(writes)
            else:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(THREADS, "files-batch")
                list(self._pool.map(self._write_beside, (writes[start::THREADS] for start in range(THREADS))))
        finally:
            for each in writes:
                if each.draft is not None:
                    drafts.enter_context(each.draft)
        for each in writes:
            # Of the whole batch, or no error of ours.
            if each.failure is not None and (
                isinstance(each.failure, Cancelled | DeadlineExceeded) or not isinstance(each.failure, GaiaError)
            ):
                raise each.failure

    def _write_beside(self, writes: list[_Write]) -> None:
        used = thread_time()
        self._write_all(writes)
        metrics.meters(self._scope.operation).worked(thread_time() - used)

    def _write_all(self, writes: list[_Write]) -> None:
        for each in writes:
            each.begun_s = self._scope.clock.monotonic()
            try:
                self._write(each)
            except OSError as failure:
                each.failure = ours(each.call.path, failure)
            except Exception as failure:  # noqa: BLE001 - raised anew by the batch's own thread
                each.failure = failure

    def _write(self, each: _Write) -> None:
        path = each.call.path
        each.draft = draft = Draft(each.directory, self._around.roots.annex(path))
        each.sink = sink = Sink(draft.fd, path, self._scope.check, None)
        sink.write(content(each.call.body))
        sink.seal()
        if each.call.durable:
            os.fsync(draft.fd)

    # --- names

    def _named_in_turn(self) -> list[Item]:
        items: list[Item] = []
        for each in self._writes:
            stopped = bool(items) and (items[-1].error is not None or items[-1] == Item())
            items.append(Item() if stopped else self._named(each))
        return items

    def _named(self, each: _Write) -> Item:
        """Give a content its name; an error stands in its place."""
        call, clock = each.call, self._scope.clock
        try:
            if each.failure is not None:
                raise each.failure
            if each.draft is None or each.sink is None:
                raise AssertionError("a content has a draft or a failure")
            with translated(call.path), self._around.writer.locked(call.path, each.directory, each.name, self._scope):
                self._keep(each)
                publish(each.draft, each.name, call.path, absent=call.if_absent)
        except (Cancelled, DeadlineExceeded):
            raise
        except GaiaError as error:
            self._around.meter.record("write", clock.monotonic() - each.begun_s, ok=False)
            return Item(error=error)
        size = each.sink.size_bytes
        self._around.meter.record("write", clock.monotonic() - each.begun_s, ok=True, written_bytes=size)
        return Item(write=files.Written(path=call.path, size_bytes=size, etag=each.sink.etag))

    def _keep(self, each: _Write) -> None:
        """Hold what is replaced: to free a file takes longer than to rename one, and the threads can do it."""
        if self._pool is not None and not each.call.if_absent:
            with suppress(OSError):
                self._replaced.append(os.open(each.name, _ANY, dir_fd=each.directory))

    def _let_go(self) -> None:
        replaced, self._replaced = self._replaced, []
        if self._pool is not None:
            for start in range(THREADS):
                self._pool.submit(_close, replaced[start::THREADS])

    def _synced(self, writes: list[_Write], items: list[Item]) -> list[Item]:
        """Make the names of durable writes durable: one fsync a directory."""
        failed: dict[int, Callable[[str], GaiaError]] = {}
        for directory in {each.directory for each, item in zip(writes, items, strict=True) if _lasts(each, item)}:
            try:
                os.fsync(directory)
            except OSError as failure:
                failed[directory] = lambda path, failure=failure: ours(path, failure)  # type: ignore[misc]
        return [
            Item(error=failed[each.directory](each.call.path))
            if _lasts(each, item) and each.directory in failed
            else item
            for each, item in zip(writes, items, strict=True)
        ]


def _close(descriptors: list[int]) -> None:
    for each in descriptors:
        os.close(each)


def _lasts(each: _Write, item: Item) -> bool:
    return each.call.durable and item.write is not None
