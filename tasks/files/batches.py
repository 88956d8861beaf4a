"""Many operations in one message, in their order."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from gaia.contracts import files
from gaia.contracts.file_bounds import BODY_LIMIT_BYTES
from gaia.contracts.files import Item
from gaia.errors import BodyTooLarge, Cancelled, DeadlineExceeded, GaiaError
from tasks.files.together import Group, Together
from tasks.scope import Scope

Perform = Callable[[Any, Scope], Any]

ENTRY_BYTES: Final = 512
"""What an entry of a listing counts for in the size of what a batch gives."""

PROGRESS_EVERY: Final = 64


def run(call: files.Batch, performers: Mapping[str, Perform], together: Together, scope: Scope) -> files.Batched:
    """Run the steps; what one of them raises stands in its place.

    Raises:
        Cancelled, DeadlineExceeded: of the whole; what was done until then is done.
    """
    with together.group(scope, stop_on_error=call.stop_on_error) as group:
        batch = _Running(call, performers, group, scope)
        for step in call.steps:
            batch.take(step)
        batch.finish()
    items = batch.items
    failed = sum(item.error is not None for item in items)
    return files.Batched(items=tuple(items), failed=failed, stopped=bool(failed and call.stop_on_error))


class _Running:
    """A batch under way."""

    def __init__(self, call: files.Batch, performers: Mapping[str, Perform], group: Group, scope: Scope) -> None:
        self._call = call
        self._performers = performers
        self._group = group
        self._scope = scope
        self._left_bytes = BODY_LIMIT_BYTES
        self._stopped = False
        self.items: list[Item] = []

    def take(self, step: files.Step) -> None:
        """Run a step, or leave it to the group of writes, which is done before any other step is."""
        if step.write is not None and not self._stopped and self._group.add(step.write):
            if self._group.full:
                self.finish()
            return
        self.finish()
        self._scope.check()
        self._note([Item() if self._stopped else self._item(step)])

    def finish(self) -> None:
        """Do the writes that wait."""
        self._note(self._group.done())

    def _note(self, items: list[Item]) -> None:
        before = len(self.items) // PROGRESS_EVERY
        self.items += items
        self._stopped |= self._call.stop_on_error and any(each.error is not None for each in items)
        if len(self.items) // PROGRESS_EVERY != before:
            self._scope.progress(len(self.items), len(self._call.steps))

    def _item(self, step: files.Step) -> Item:
        for name, each in vars(step).items():
            if each is not None:
                try:
                    return Item(**{name: self._within_bounds(each, self._performers[name](each, self._scope))})
                except (Cancelled, DeadlineExceeded):
                    raise
                except GaiaError as error:
                    return Item(error=error)
        return Item()

    def _within_bounds(self, step: Any, result: Any) -> Any:
        """Count what a step gives: a batch gives no more than one call may, and so it takes no more memory."""
        if isinstance(result, files.Content | files.Chunk):
            self._left_bytes -= len(result.body)
        elif isinstance(result, files.Listing):
            self._left_bytes -= ENTRY_BYTES * len(result.entries)
        if self._left_bytes < 0:
            self._left_bytes = 0
            raise BodyTooLarge(step.path, BODY_LIMIT_BYTES)
        return result
