"""Many operations in one message, one after the other."""

from collections.abc import Callable, Mapping
from typing import Any

from gaia.contracts import files
from gaia.contracts.files import Fault, Item
from gaia.errors import Cancelled, DeadlineExceeded, GaiaError
from tasks.scope import Scope

Perform = Callable[[Any, Scope], Any]


def run(call: files.Batch, performers: Mapping[str, Perform], scope: Scope) -> files.Batched:
    """Run the steps; what one of them raises stands in its place.

    Raises:
        Cancelled, DeadlineExceeded: of the whole; what was done until then is done.
    """
    items: list[Item] = []
    failed = 0
    for step in call.steps:
        scope.check()
        if failed and call.stop_on_error:
            items.append(Item())
            continue
        item = _item(step, performers, scope)
        failed += item.error is not None
        items.append(item)
        if len(items) % 64 == 0:
            scope.progress(len(items), len(call.steps))
    return files.Batched(items=tuple(items), failed=failed, stopped=bool(failed and call.stop_on_error))


def _item(step: files.Step, performers: Mapping[str, Perform], scope: Scope) -> Item:
    for name, each in vars(step).items():
        if each is not None:
            try:
                return Item(**{name: performers[name](each, scope)})
            except (Cancelled, DeadlineExceeded):
                raise
            except GaiaError as error:
                return Item(error=Fault(type(error).__name__, error.args))
    return Item()
