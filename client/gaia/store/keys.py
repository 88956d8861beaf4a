"""The name of every key and channel that Gaia keeps in Redis, besides Celery's own."""

from typing import Final

from gaia.sticky import escape

CANCEL_CHANNEL: Final = "gaia:cancel"
DEAD: Final = "gaia:dead"

CANCEL_TTL_S: Final = 24 * 3600
KEY_TTL_S: Final = 24 * 3600
"""Of an idempotency key, and of the result under it, once the call has ended; see `gaia.store.idempotency`."""
PROGRESS_TTL_S: Final = 3600

_RESULT = "celery-task-meta-"


def result(call_id: str) -> str:
    """Name the result of a call: Celery's key, and the channel it announces the result on."""
    return _RESULT + call_id


def id_of_result(name: str) -> str:
    """Give the call's id back from `result`."""
    return name.removeprefix(_RESULT)


def cancel(call_id: str) -> str:
    """Name the mark of a cancelled call."""
    return f"gaia:cancel:{call_id}"


def progress(call_id: str) -> str:
    """Name the latest progress of a call."""
    return f"gaia:progress:{call_id}"


def idempotency(key: str) -> str:
    """Name the record of an idempotency key."""
    return f"gaia:key:{key}"


def artifact(artifact_id: str) -> str:
    """Name a large body."""
    return f"gaia:artifact:{artifact_id}"


ARTIFACT_SWEEP: Final = "gaia:artifact-sweep"
"""Held by the worker whose turn it is to remove expired bodies from the directory."""

PROCESSES: Final = "gaia:processes"
"""Started programs: `node/pid/start`, the node escaped, to a record."""

# --- of the transport; the scripts of `tasks.broker` build the first two from a call's id

LOST: Final = "gaia:lost:"
CANCEL: Final = "gaia:cancel:"
HELD: Final = "gaia:held"
PAUSED: Final = "gaia:paused"
SWEEP: Final = "gaia:sweep"
DELAYED: Final = "gaia:delayed"
DELAYED_MESSAGES: Final = "gaia:delayed:messages"
DEAD_SERIAL: Final = "gaia:dead-serial"

# --- of the nodes; the scripts build the first, and the names of own queues, from an escaped node

ROOTS: Final = "gaia:roots"
"""Roots of files, by name: which directory each is, told by its identity."""

NODE: Final = "gaia:node:"
NODES: Final = "gaia:nodes"
"""Nodes, escaped, by when they were last seen; 0 is for one that has gone and may have left messages."""
ORPHANS: Final = "gaia:orphans"
"""Messages from the own queues of nodes that have gone, by their SHA-1, until they are answered."""

LATER: Final = "gaia:later:"
"""Delayed calls for one node, by when they are due; followed by the node, escaped."""

PRIORITY_STEPS: Final = (0, 3, 6, 9)
"""kombu's: the priorities 0 to 9 share four lists."""

_SEPARATOR = "\x06\x16"


def queue_list(queue: str, priority: int) -> str:
    """Name the list of a queue that holds messages of a priority from 0 to 9."""
    step = max(each for each in PRIORITY_STEPS if each <= priority)
    return f"{queue}{_SEPARATOR}{step}" if step else queue


def own_queue(node: str) -> str:
    """Name the queue that only this node consumes."""
    return f"gaia.node.{escape(node)}"


def node(name: str) -> str:
    """Name the heartbeat of a node."""
    return NODE + escape(name)


def dead_letter(letter_id: str) -> str:
    """Name a dead letter."""
    return f"{DEAD}:{letter_id}"


def history(call_id: str) -> str:
    """Name what happened to a call so far, if that is out of the ordinary."""
    return f"gaia:history:{call_id}"


def aside(operation: str) -> str:
    """Name the list of messages that wait for a paused operation to be resumed."""
    return f"gaia:aside:{operation}"


# --- of limits; they share a hash tag, so that a stack of them is one script call on one node of a Redis Cluster

_LIMITS = "{gaia:limits}"
_CIRCUIT = f"{_LIMITS}:circuit:"
CIRCUITS: Final = f"{_LIMITS}:circuits"
"""Keys of the circuits that are not closed, or held, by when they end, in microseconds."""
LIMIT_SETTINGS: Final = f"{_LIMITS}:settings"
LIMITS_CHANNEL: Final = "gaia:limits"
"""Announces changes: of the settings by `LIMIT_SETTINGS`, of a circuit's state by its key."""


def bucket(name: str) -> str:
    """Name the level of a rate or bandwidth limit."""
    return f"{_LIMITS}:bucket:{name}"


def slots(name: str) -> str:
    """Name the leases of a concurrency limit."""
    return f"{_LIMITS}:slots:{name}"


def circuit(name: str) -> str:
    """Name the state of a circuit breaker."""
    return _CIRCUIT + name


def name_of_circuit(key: str) -> str:
    """Give the name back from `circuit`."""
    return key.removeprefix(_CIRCUIT)


# --- of names that were looked up; one hash tag, so that many are read by one script call

_NAMES = "{gaia:dns}"
NAMES_FLUSHES: Final = f"{_NAMES}:flushes"
"""Counts flushes; answers of before the last one are never read again, and expire."""


def answer(flushes: int, view: str, kind: str, name: str) -> str:
    """Name what name servers said; `view` is which ones."""
    return f"{_NAMES}:{flushes}:{view}:{kind}:{name}"
