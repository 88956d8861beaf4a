"""What the calls of the `files` queue answer with; `gaia.contracts.files` hands every name on."""

from typing import Any, Literal, cast

from gaia.codec import Artifact
from gaia.contracts.base import Result, contract, secret
from gaia.errors import GaiaError
from gaia.outcome import Outcome

Kind = Literal["file", "directory", "link", "other"]


@contract
class Written(Result):
    """A file as it stands after a write. `etag` changes whenever the content does."""

    path: str
    size_bytes: int
    etag: str


@contract
class Appended(Result):
    """Where the appended bytes begin, and the size of the file after them."""

    path: str
    offset_bytes: int
    size_bytes: int


@contract
class Content(Result):
    """A file's content."""

    path: str
    body: bytes = secret("body")
    size_bytes: int
    etag: str


@contract
class Chunk(Result):
    """A part of a file, from `offset_bytes` to before `next_bytes`; the whole had `file_bytes` when it was read.

    `rotated` says that the file was shorter than the offset asked for, so that it was read from its start.
    """

    path: str
    body: bytes = secret("body")
    offset_bytes: int
    next_bytes: int
    file_bytes: int
    rotated: bool = False


@contract
class Moved(Result):
    """Where something went."""

    path: str
    target: str


@contract
class Deleted(Result):
    """What was deleted: how many entries, directories among them, and the size of the files."""

    path: str
    entries: int
    size_bytes: int


@contract
class Made(Result):
    """A directory; `created` is False if it was there already."""

    path: str
    created: bool


@contract
class Entry(Result):
    """What is at a path. A link is described itself. `modified_at_s` is seconds since the epoch."""

    path: str
    kind: Kind
    size_bytes: int
    modified_at_s: float
    mode: int


@contract
class Digest(Result):
    """The checksum of a content, in hexadecimal."""

    path: str
    algorithm: str
    hexdigest: str
    size_bytes: int


@contract
class Listing(Result):
    """Entries of a directory by name. There are more if `cursor` is set: hand it to the next call."""

    entries: tuple[Entry, ...]
    cursor: str | None = None


@contract
class Walked(Result):
    """Paths beneath a directory, each directory's in order of names. There are more if `cursor` is set."""

    paths: tuple[str, ...]
    cursor: str | None = None


@contract
class Parsed(Result):
    """What a query found: the one `value` that it names, or a page of `items`. There are more if `cursor` is set."""

    path: str
    value: Any = secret("body", default=None)
    items: tuple[Any, ...] = secret("body", default=())
    cursor: str | None = None


@contract
class Streamed(Result):
    """What was copied. `artifact` is set if it went to the artifact store."""

    size_bytes: int
    sha256: str
    elapsed_s: float
    artifact: Artifact | None = None


@contract
class Packed(Result):
    """An archive: its own size, and what it holds."""

    path: str
    size_bytes: int
    entries: int
    content_bytes: int


@contract
class Unpacked(Result):
    """A directory with what an archive held."""

    path: str
    entries: int
    content_bytes: int


@contract
class Item(Result):
    """What became of one step of a batch: `error`, or the field that is named after the step. None: not run."""

    error: GaiaError | None = None
    write: Written | None = None
    append: Appended | None = None
    read: Content | None = None
    read_range: Chunk | None = None
    tail: Chunk | None = None
    copy: Written | None = None
    move: Moved | None = None
    delete: Deleted | None = None
    make_dir: Made | None = None
    stat: Entry | None = None
    checksum: Digest | None = None
    list: Listing | None = None

    def outcome(self) -> Outcome[Result] | None:
        """Give the same as an outcome, None for a step that was not run."""
        if self.error is not None:
            return Outcome(ok=False, error=self.error)
        found = next((value for value in vars(self).values() if value is not None), None)
        return None if found is None else Outcome(ok=True, result=cast("Result", found))


@contract
class Batched(Result):
    """What became of each step, in order. `stopped` says that an error kept the rest from being run."""

    items: tuple[Item, ...]
    failed: int = 0
    stopped: bool = False

    def outcomes(self) -> tuple[Outcome[Result] | None, ...]:
        """Give the items as outcomes, None for a step that was not run."""
        return tuple(each.outcome() for each in self.items)


@contract
class RootState(Result):
    """A root of one worker: what it holds, as far as a quota counts it, and whether it can be used."""

    name: str
    local: bool
    usable: bool
    writable: bool
    free_bytes: int
    reason: str = ""
    identity: str = ""
    used_bytes: int | None = None
    used_files: int | None = None
    quota_bytes: int | None = None
    quota_files: int | None = None


@contract
class OperationStats(Result):
    """What one operation did since its worker started; the times include errors."""

    operation: str
    successes: int
    errors: int
    total_s: float
    slowest_s: float


@contract
class FileStats(Result):
    """Every counter and gauge of one worker process: the one that answered.

    `active`, `peak` and `waiting` count operations at the gate, of which `limit` may be active at once;
    `latency_p50_s` and `latency_p95_s` are of the last 1024 operations.
    """

    worker: str
    operations: int
    successes: int
    errors: int
    read_bytes: int
    written_bytes: int
    active: int
    peak: int
    waiting: int
    limit: int
    latency_p50_s: float
    latency_p95_s: float
    by_operation: tuple[OperationStats, ...] = ()
    roots: tuple[RootState, ...] = ()


@contract
class FileHealth(Result):
    """`healthy`: every root is writable. `degraded`: one is not, or the gate is full. `unhealthy`: none is usable."""

    status: Literal["healthy", "degraded", "unhealthy"]
    reasons: tuple[str, ...] = ()
    roots: tuple[RootState, ...] = ()
