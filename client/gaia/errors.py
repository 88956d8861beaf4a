"""Every error that crosses the queue.

Fields first, a sentence second. The fields are JSON values in `args`, in the order of the constructor, so an error
survives pickle, Celery's JSON result (`exc_type`, `exc_message`) and a log line alike. A service translates foreign
exceptions at its border; a producer meets only what is declared here.

`Transient` errors may be retried, `Permanent` ones may not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Self

from gaia import codec

__all__ = ["REGISTRY", "GaiaError", "Permanent", "Transient", "picture_of", "revive"]


@dataclass(eq=False, repr=False)
class GaiaError(Exception):
    """The base of every error that Gaia raises."""

    def __post_init__(self) -> None:
        """Keep the fields as `args`: that is what pickle and Celery carry."""
        self.args = tuple(getattr(self, each.name) for each in fields(self))

    def scrubbed(self, scrub: Callable[[str], str]) -> Self:
        """Give the same error with secrets struck from its texts."""
        return type(self)(*(scrub(each) if isinstance(each, str) else each for each in self.args))

    def __repr__(self) -> str:
        """Show the class and its fields; they hold no secret."""
        inner = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in fields(self))
        return f"{type(self).__name__}({inner})"


class Transient(GaiaError):  # noqa: N818 - `Transient` and `Permanent` read as what an error is
    """It may work when tried again."""


class Permanent(GaiaError):  # noqa: N818 - as above
    """Trying again without a change gives the same answer."""


# --- of the call itself


@dataclass(eq=False, repr=False)
class InvalidCall(Permanent):
    """A field of a call is missing, unknown, of the wrong type, or out of bounds."""

    operation: str
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.operation}: field {self.field!r} {self.reason}"


@dataclass(eq=False, repr=False)
class InvalidResult(Permanent):
    """A worker's reply does not fit the contract this client knows; the two are of different versions."""

    operation: str
    field: str
    reason: str

    def __str__(self) -> str:
        return f"the reply to {self.operation} does not fit its contract: {self.field!r} {self.reason}"


@dataclass(eq=False, repr=False)
class PayloadTooLarge(Permanent):
    """A message is larger than the queue takes."""

    operation: str
    size_bytes: int
    limit_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.operation}: the message has {self.size_bytes} bytes, the queue takes {self.limit_bytes}: "
            "hand large data over in a field of bytes, or with `put`, or split the call"
        )


@dataclass(eq=False, repr=False)
class UnknownOperation(Permanent):
    """No worker of this cluster's version knows the operation."""

    name: str

    def __str__(self) -> str:
        return f"no operation is called {self.name!r}"


@dataclass(eq=False, repr=False)
class NewerPayload(Permanent):
    """A message was written by a client newer than this worker."""

    operation: str
    version: int
    known: int

    def __str__(self) -> str:
        return f"{self.operation}: payload version {self.version}, this worker knows up to {self.known}: upgrade it"


@dataclass(eq=False, repr=False)
class KeyReused(Permanent):
    """An idempotency key was used before, with another payload."""

    key: str
    id: str

    def __str__(self) -> str:
        return f"idempotency key {self.key!r} belongs to another call, {self.id}"


@dataclass(eq=False, repr=False)
class Cancelled(Permanent):
    """The call was cancelled, before or while it ran."""

    id: str

    def __str__(self) -> str:
        return f"call {self.id} was cancelled"


@dataclass(eq=False, repr=False)
class Expired(Permanent):
    """The call had not started when its `expires` passed, so it was dropped."""

    id: str

    def __str__(self) -> str:
        return f"call {self.id} expired before a worker started it"


@dataclass(eq=False, repr=False)
class DeadlineExceeded(Permanent):
    """The call had not ended by its deadline."""

    operation: str
    late_s: float

    def __str__(self) -> str:
        return f"{self.operation}: the deadline passed {self.late_s:.3f} s ago"


@dataclass(eq=False, repr=False)
class InternalError(Permanent):
    """A service failed in a way it does not know: a defect of Gaia. The worker's log holds the traceback."""

    operation: str
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.operation}: unexpected {self.kind}: {self.detail}"


@dataclass(eq=False, repr=False)
class RemoteError(Permanent):
    """A worker stored an error of a class this client does not know."""

    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


# --- of the cluster


@dataclass(eq=False, repr=False)
class Unreachable(Transient):
    """Redis did not answer. For a submit: whether the message was queued is not known."""

    url: str
    reason: str

    def __str__(self) -> str:
        return f"Redis at {self.url} cannot be reached: {self.reason}"


@dataclass(eq=False, repr=False)
class NotReady(Transient, TimeoutError):  # noqa: N818 - a state, and a TimeoutError by its base
    """`Pending.get` waited as long as it was told to. The call goes on; ask again or cancel it."""

    id: str
    waited_s: float

    def __str__(self) -> str:
        return f"call {self.id} had no result after {self.waited_s:.3f} s"


@dataclass(eq=False, repr=False)
class NoResult(Permanent):
    """The call was submitted with `result=False`: nothing is stored for it."""

    id: str

    def __str__(self) -> str:
        return f"call {self.id} was submitted with result=False"


@dataclass(eq=False, repr=False)
class NotConfigured(Permanent):
    """The operation needs a setting that is not set."""

    setting: str
    reason: str

    def __str__(self) -> str:
        return f"{self.setting} is not set: {self.reason}"


@dataclass(eq=False, repr=False)
class InvalidSetting(Permanent):
    """A setting has a value that cannot be used."""

    setting: str
    reason: str

    def __str__(self) -> str:
        return f"{self.setting} {self.reason}"


@dataclass(eq=False, repr=False)
class WorkerLostTooOften(Permanent):
    """The call's workers died or vanished so often that it is among the dead letters now: it may be what kills them."""

    operation: str
    lost_leases: int

    def __str__(self) -> str:
        return f"{self.operation}: {self.lost_leases} workers were lost over this call; it is a dead letter now"


@dataclass(eq=False, repr=False)
class HolderLost(Permanent):
    """The worker that held a session, a started process or the like has ended, and what it held with it."""

    id: str

    def __str__(self) -> str:
        return f"{self.id} is gone: the worker that held it has ended or was restarted"


@dataclass(eq=False, repr=False)
class NotReplayable(Permanent):
    """A dead letter is no call, so it cannot be queued again."""

    id: str
    reason: str

    def __str__(self) -> str:
        return f"dead letter {self.id} cannot be replayed: {self.reason}"


@dataclass(eq=False, repr=False)
class ArtifactMissing(Permanent):
    """A large body is gone: it expired, was never stored, or does not match its checksum."""

    id: str
    reason: str

    def __str__(self) -> str:
        return f"artifact {self.id}: {self.reason}"


@dataclass(eq=False, repr=False)
class ArtifactsFull(Transient):
    """The quota of the artifact directory is used up; expired bodies make room."""

    needed_bytes: int
    quota_bytes: int

    def __str__(self) -> str:
        return f"the artifact directory has no room for {self.needed_bytes} bytes within {self.quota_bytes}"


@dataclass(eq=False, repr=False)
class ArtifactsUnavailable(Transient):
    """The artifact directory cannot be used: it is not mounted, not permitted, or its disk is full."""

    directory: str
    reason: str

    def __str__(self) -> str:
        return f"the artifact directory {self.directory} cannot be used: {self.reason}"


# --- of the network


@dataclass(eq=False, repr=False)
class EgressDenied(Permanent):
    """An outbound address is refused by the egress rules."""

    host: str
    address: str
    reason: str

    def __str__(self) -> str:
        return f"egress to {self.host} ({self.address}) is denied: {self.reason}"


@dataclass(eq=False, repr=False)
class NameNotFound(Permanent):
    """The name does not exist, or has no record of the type asked for."""

    name: str
    type: str

    def __str__(self) -> str:
        return f"{self.name} has no {self.type} record"


@dataclass(eq=False, repr=False)
class ResolverFailed(Transient):
    """No name server gave an answer in time."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} could not be resolved: {self.reason}"


@dataclass(eq=False, repr=False)
class ConnectFailed(Transient):
    """No connection could be made, or it broke before an answer came."""

    host: str
    reason: str

    def __str__(self) -> str:
        return f"{self.host}: {self.reason}"


@dataclass(eq=False, repr=False)
class TimedOut(Transient):
    """The operation's own `timeout_s` (or what was left of its deadline) passed while it ran."""

    operation: str
    timeout_s: float

    def __str__(self) -> str:
        return f"{self.operation}: not done within {self.timeout_s:.3f} s"


@dataclass(eq=False, repr=False)
class TlsFailed(Permanent):
    """The TLS handshake failed: certificate, name, or protocol."""

    host: str
    reason: str

    def __str__(self) -> str:
        return f"TLS with {self.host} failed: {self.reason}"


@dataclass(eq=False, repr=False)
class BadReply(Permanent):
    """The server's answer is not HTTP as it should be, or cannot be decoded."""

    host: str
    reason: str

    def __str__(self) -> str:
        return f"{self.host} sent a bad reply: {self.reason}"


@dataclass(eq=False, repr=False)
class BodyTooLarge(Permanent):
    """A body passed its cap; reading stopped there."""

    source: str
    limit_bytes: int

    def __str__(self) -> str:
        return f"{self.source}: the body is over {self.limit_bytes} bytes"


@dataclass(eq=False, repr=False)
class ArtifactTooLarge(BodyTooLarge):
    """A body is over what Redis keeps, and no directory for larger ones is named."""

    def __str__(self) -> str:
        return (
            f"{self.source} is over {self.limit_bytes} bytes: name a directory that producers and workers share in "
            "GAIA_ARTIFACTS__URL; then hand it over as it is, or with `put`, which streams"
        )


@dataclass(eq=False, repr=False)
class BodyOverMemory(BodyTooLarge):
    """A stored body is over what is taken into memory as a whole."""

    def __str__(self) -> str:
        return (
            f"{self.source}: over {self.limit_bytes} bytes, the most that is taken into memory: raise "
            "GAIA_ARTIFACTS__MEMORY_BYTES on the side that reads, or read with `open`"
        )


@dataclass(eq=False, repr=False)
class ServerBusy(Transient):
    """The server answered, and its status says that another try may succeed. `retry_after_s` is what it asked for."""

    host: str
    status: int
    retry_after_s: float

    def __str__(self) -> str:
        return f"{self.host} answered with status {self.status}: try again in {self.retry_after_s:.3f} s"


@dataclass(eq=False, repr=False)
class BadStatus(Permanent):
    """The server answered with a status that brings no content to keep."""

    host: str
    status: int

    def __str__(self) -> str:
        return f"{self.host} answered with status {self.status}"


@dataclass(eq=False, repr=False)
class ChecksumMismatch(Permanent):
    """What came is not what the caller asked for."""

    source: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.source}: its SHA-256 is {self.found}, not {self.expected}"


@dataclass(eq=False, repr=False)
class TooManyRedirects(Permanent):
    """The server redirected more often than allowed."""

    host: str
    limit: int

    def __str__(self) -> str:
        return f"{self.host}: more than {self.limit} redirects"


@dataclass(eq=False, repr=False)
class PoolExhausted(Transient):
    """Every slot of a pool stayed busy for as long as a caller may wait."""

    pool: str
    size: int
    waited_s: float

    def __str__(self) -> str:
        return f"{self.pool}: all {self.size} busy for {self.waited_s:.3f} s"


# --- of limits


@dataclass(eq=False, repr=False)
class LimitExceeded(Transient):
    """A limit of the cluster leaves no room for the call now. `limit` names the level, `rate:api.example.com`."""

    limit: str
    retry_after_s: float

    def __str__(self) -> str:
        return f"the limit {self.limit} is used up: try again in {self.retry_after_s:.3f} s"


@dataclass(eq=False, repr=False)
class CircuitOpen(Transient):
    """Calls to a host failed in a row, so none is let through for a while."""

    host: str
    retry_after_s: float

    def __str__(self) -> str:
        return f"the circuit of {self.host} is open: try again in {self.retry_after_s:.3f} s"


@dataclass(eq=False, repr=False)
class LeaseLost(Transient):
    """A slot of a concurrency limit is not held: it lapsed or was given back. Another may have it by now."""

    limit: str

    def __str__(self) -> str:
        return f"the lease of {self.limit} is not held: its time was over, or it was given back before"


# --- of files


@dataclass(eq=False, repr=False)
class PathDenied(Permanent):
    """A path names no configured root, leaves its root, or is not allowed there."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(eq=False, repr=False)
class FileMissing(Permanent):
    """There is nothing at that path."""

    path: str

    def __str__(self) -> str:
        return f"{self.path}: no such file or directory"


@dataclass(eq=False, repr=False)
class FileFailed(Permanent):
    """The operating system refused a file operation."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(eq=False, repr=False)
class DiskFull(Transient):
    """The file system beneath a root has no room left, or the user's share of it is used up."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(eq=False, repr=False)
class QuotaExceeded(Permanent):
    """A write would pass the quota of its root, in bytes or in files."""

    path: str
    quota: str
    limit: int

    def __str__(self) -> str:
        return f"{self.path}: the root may hold {self.limit} {self.quota}"


@dataclass(eq=False, repr=False)
class PreconditionFailed(Permanent):
    """A file is not what a conditional write asked for; nothing has changed."""

    path: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}, found {self.found}"


@dataclass(eq=False, repr=False)
class FileBusy(Transient):
    """Another call held the lock of a file for as long as this one may wait."""

    path: str
    waited_s: float

    def __str__(self) -> str:
        return f"{self.path}: locked for {self.waited_s:.3f} s"


@dataclass(eq=False, repr=False)
class BadDocument(Permanent):
    """A file cannot be parsed, or holds what is refused."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(eq=False, repr=False)
class ArchiveRefused(Permanent):
    """An archive is broken, over its bounds, or has a member that is not let out of it."""

    path: str
    member: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.member!r} {self.reason}" if self.member else f"{self.path}: {self.reason}"


@dataclass(eq=False, repr=False)
class RootUnavailable(Transient):
    """No worker that lives holds a root that is local to one machine."""

    path: str

    def __str__(self) -> str:
        return f"{self.path}: no worker that holds the root lives"


@dataclass(eq=False, repr=False)
class RootMismatch(Permanent):
    """A root is another directory than the one that the cluster's workers know by that name."""

    root: str
    expected: str
    found: str

    def __str__(self) -> str:
        return (
            f"root {self.root!r} is not the directory that the cluster knows by this name "
            f"(identity {self.expected}, found {self.found}): mount it, or name it otherwise; if it was replaced on "
            f"purpose, `gaia roots forget {self.root}`"
        )


# --- of processes


@dataclass(eq=False, repr=False)
class ExecutableDenied(Permanent):
    """The executable is not on the worker's allow list."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(eq=False, repr=False)
class StartFailed(Permanent):
    """The program could not be started."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path} could not be started: {self.reason}"


@dataclass(eq=False, repr=False)
class ProcessMissing(Permanent):
    """The worker that the id names holds no such program: it ended a while ago and was forgotten, or never was."""

    id: str

    def __str__(self) -> str:
        return f"{self.id} is no started program, or was forgotten after its end"


# --- of browsers


@dataclass(eq=False, repr=False)
class BrowserUnavailable(Transient):
    """No browser could be started, or it died under the call."""

    reason: str

    def __str__(self) -> str:
        return f"no browser: {self.reason}"


@dataclass(eq=False, repr=False)
class NavigationFailed(Permanent):
    """The page could not be loaded. `screenshot` as in `PageTimedOut`."""

    url: str
    reason: str
    screenshot: str = ""

    def __str__(self) -> str:
        return f"{self.url} could not be loaded: {self.reason}"


@dataclass(eq=False, repr=False)
class PageTimedOut(TimedOut):
    """A page was not done in time.

    `screenshot` refers to a JPEG of that moment, "" if the page could not be drawn any more: `picture_of(error)` gives
    the artifact, `Gaia.open` its bytes.
    """

    url: str = ""
    screenshot: str = ""

    def __str__(self) -> str:
        return f"{self.operation}: {self.url} was not done within {self.timeout_s:.3f} s"


@dataclass(eq=False, repr=False)
class PageTooLarge(BodyTooLarge):
    """Markup or text of a page is over the cap. `screenshot` as in `PageTimedOut`."""

    screenshot: str = ""


@dataclass(eq=False, repr=False)
class PageCrashed(Permanent):
    """The process of the page ended under the call, as by a lack of memory; a capture was tried twice."""

    url: str
    reason: str

    def __str__(self) -> str:
        return f"{self.url} crashed: {self.reason}"


@dataclass(eq=False, repr=False)
class StepFailed(Permanent):
    """A step could not be done: its element did not appear, or cannot be used so. `step` counts from 0."""

    step: int
    action: str
    reason: str
    screenshot: str = ""

    def __str__(self) -> str:
        return f"step {self.step} ({self.action}) failed: {self.reason}"


@dataclass(eq=False, repr=False)
class ScriptFailed(Permanent):
    """JavaScript of the caller threw, or gave what is no JSON."""

    reason: str
    screenshot: str = ""

    def __str__(self) -> str:
        return f"the script failed: {self.reason}"


@dataclass(eq=False, repr=False)
class SessionMissing(Permanent):
    """The worker lives, but the browser session has ended: closed, idle for too long, or its browser crashed."""

    id: str
    reason: str

    def __str__(self) -> str:
        return f"there is no session {self.id}: {self.reason}"


@dataclass(eq=False, repr=False)
class TabMissing(Permanent):
    """The session has no such tab: it was closed, it crashed, or it never was."""

    session: str
    tab: str

    def __str__(self) -> str:
        return f"session {self.session} has no tab {self.tab!r}"


@dataclass(eq=False, repr=False)
class InvalidExtension(Permanent):
    """An archive holds no extension that Chromium takes."""

    reason: str

    def __str__(self) -> str:
        return f"the extension cannot be loaded: {self.reason}"


def picture_of(error: GaiaError) -> codec.Artifact | None:
    """Give the picture of the moment in which a page failed; None if there is none."""
    found = str(getattr(error, "screenshot", "")).split(":")
    if len(found) != 3 or not found[1].isdigit():  # noqa: PLR2004 - id, size, SHA-256
        return None
    return codec.Artifact(found[0], int(found[1]), found[2], "image/jpeg")


def _registry() -> dict[str, type[GaiaError]]:
    found: dict[str, type[GaiaError]] = {}
    heap: list[type[GaiaError]] = [GaiaError]
    while heap:
        kind = heap.pop()
        found[kind.__name__] = kind
        heap.extend(kind.__subclasses__())
    return found


REGISTRY = _registry()
"""Class name to class. Names are unique, so a name on the wire is enough to revive an error."""


def revive(kind: str, arguments: Sequence[object] | str) -> GaiaError:
    """Rebuild an error from its class name and fields; one that is not ours becomes `RemoteError`."""
    found = REGISTRY.get(kind)
    names = [each.name for each in fields(found)] if found is not None else []
    if found is not None and not isinstance(arguments, str) and len(names) == len(arguments):
        try:
            return codec.decode(found, dict(zip(names, arguments, strict=True))) if names else found()
        except codec.Mismatch:
            pass  # the same name with other fields: an error of another version
    detail = arguments if isinstance(arguments, str) else ", ".join(str(each) for each in arguments)
    return RemoteError(kind, detail)


def _arguments(error: GaiaError) -> dict[str, object]:
    return {"kind": type(error).__name__, "arguments": list(error.args)}


def _revived(given: object) -> GaiaError:
    if not isinstance(given, dict) or not isinstance(given.get("kind"), str):
        raise codec.Mismatch("kind", "must name a class of errors")
    arguments = given.get("arguments")
    if not isinstance(arguments, list):
        raise codec.Mismatch("arguments", "must be an array")
    return revive(given["kind"], arguments)


codec.register(GaiaError, _arguments, _revived)
