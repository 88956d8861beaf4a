"""Who this process is: its node and boot, and the things it holds.

The node is the worker's name, the boot is new with every start and re-execution. What is held (sessions, started
processes) is known here alone and dies with the process; from then on its ids name a boot that nobody has.
"""

import threading
from dataclasses import dataclass, field
from typing import Final

from gaia.sticky import HolderId, new_boot


@dataclass(frozen=True)
class Identity:
    """One start of one worker. Thread-safe."""

    node: str
    boot: str = field(default_factory=new_boot)
    _held: set[str] = field(default_factory=set, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def hold(self) -> str:
        """Give an id for a thing that lives here from now on; calls about it are led to this process."""
        made = HolderId.new(self.node, self.boot).format()
        with self._lock:
            self._held.add(made)
        return made

    def release(self, holder_id: str) -> None:
        """Say that a thing has ended; again changes nothing."""
        with self._lock:
            self._held.discard(holder_id)

    def owns(self, holder: HolderId) -> bool:
        """Say whether an id was made here, by this boot. The thing itself may have ended."""
        return (holder.node, holder.boot) == (self.node, self.boot)

    @property
    def holds_any(self) -> bool:
        """Say whether anything lives here: a worker that is only to be renewed waits for it, within its grace."""
        with self._lock:
            return bool(self._held)


_own: Final[list[Identity]] = []


def begin(node: str) -> Identity:
    """Give this process its identity; called once, when its worker starts."""
    _own[:] = [Identity(node)]
    return _own[0]


def own() -> Identity:
    """Give this process's identity.

    Raises:
        RuntimeError: if no worker was started in this process.
    """
    if not _own:
        raise RuntimeError("no worker runs in this process")
    return _own[0]
