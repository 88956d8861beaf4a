"""The holders of this process, one a broker, and what is told to all of them."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from gaia import wire
from tasks import metrics
from tasks.broker.holder import Holder
from tasks.broker.storing import Storer


@dataclass
class _Process:
    """What holds for every holder of this process, also those to come."""

    slots: int | None = None
    deadline_s: float = wire.DEFAULT_DEADLINE_S
    delivery_cap: int = 3
    on_lost: Callable[[str], None] | None = None
    storer: Storer | None = None

    def tell(self, holder: Holder) -> None:
        holder.slots, holder.deadline_s, holder.storer = self.slots, self.deadline_s, self.storer
        holder.delivery_cap, holder.on_lost = self.delivery_cap, self.on_lost


_holders: dict[str, Holder] = {}
_lock = threading.Lock()
_process = _Process()


def of(broker: str) -> Holder:
    """Give the holder of a broker, one a process."""
    with _lock:
        found = _holders.get(broker)
        if found is None:
            found = _holders[broker] = Holder()
            _process.tell(found)
        return found


def _forget_in_child() -> None:
    """A forked process holds nothing: what it was forked with is its parent's, and so are the fences."""
    global _lock  # noqa: PLW0603 - another thread of the parent may have had it
    _holders.clear()
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_in_child)


def holding(tag: str) -> Holder | None:
    """Give whoever in this process holds a message."""
    return next((each for each in list(_holders.values()) if each.holds(tag)), None)


def configure(
    *,
    slots: int | None = None,
    deadline_s: float | None = None,
    delivery_cap: int | None = None,
    on_lost: Callable[[str], None] | None = None,
    storer: Storer | None = None,
) -> None:
    """Tell every holder of this process, also those to come, what a `Holder` says of these."""
    with _lock:
        _process.slots = slots or _process.slots
        _process.deadline_s = deadline_s or _process.deadline_s
        _process.delivery_cap = delivery_cap or _process.delivery_cap
        _process.on_lost = on_lost or _process.on_lost
        _process.storer = storer or _process.storer
        for each in _holders.values():
            _process.tell(each)


def _held() -> int:
    return sum(len(each.held()) for each in list(_holders.values()))


metrics.HELD.watch(_held)


def leave() -> None:
    """Tell every holder that the worker begins to end."""
    for each in list(_holders.values()):
        each.leave()


def close(patience_s: float = 0.0) -> None:
    """Store, commit and give back what every holder holds: the worker has ended.

    `patience_s` is for a store of results that is away.
    """
    if _process.storer is not None:
        _process.storer.close(patience_s)
    for each in list(_holders.values()):
        each.close()
