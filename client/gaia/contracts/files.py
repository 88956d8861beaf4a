"""Calls of the `files` queue: files beneath named roots.

A path is `root:relative/path`. The roots are directories that the worker's settings name; nothing leaves them. A call
that changes something answers once that is on the disk (fsync); with `durable=False` a power cut may undo it.
"""

from typing import Literal, Self

from gaia.codec import Artifact, Body
from gaia.contracts.base import Call, Result, contract, secret
from gaia.contracts.file_bounds import (
    BATCH_LIMIT,
    BODY_LIMIT_BYTES,
    PAGE_LIMIT,
    QUERY_LIMIT,
    check_archive,
    check_page,
    check_path,
    check_paths,
    check_query,
)
from gaia.contracts.file_results import (
    Appended,
    Batched,
    Chunk,
    Content,
    Deleted,
    Digest,
    Entry,
    FileHealth,
    FileStats,
    Item,
    Kind,
    Listing,
    Made,
    Moved,
    OperationStats,
    Packed,
    Parsed,
    RootState,
    Streamed,
    Unpacked,
    Walked,
    Written,
)
from gaia.errors import InvalidCall

__all__ = [
    "Append", "Appended", "Batch", "Batched", "Checksum", "Chunk", "Content", "Copy", "Delete", "Deleted", "Digest",
    "Entry", "FileHealth", "FileStats", "Health", "Item", "Kind", "List", "Listing", "Made", "MakeDir", "Move",
    "Moved", "OperationStats", "Pack", "Packed", "ParseCsv", "ParseJson", "ParseJsonl", "ParseXml", "Parsed", "Read",
    "ReadRange", "RootState", "Stat", "Stats", "Step", "Stream", "Streamed", "Tail", "Unpack", "Unpacked", "Walk",
    "Walked", "Write", "Written",
]  # fmt: skip

ArchiveFormat = Literal["tar", "tar.gz", "tar.zst", "zip"]


@contract
class Write(Call[Written], operation="files.write"):
    """Put `body` at `path`, whole or not at all: a reader sees the old content or the new one, never a part.

    Missing directories are made. With `if_etag` the file must have that etag, with `if_absent` it must not be there:
    else `PreconditionFailed`, and nothing has changed.
    """

    path: str
    body: Body = secret("body")
    durable: bool = True
    if_etag: str | None = None
    if_absent: bool = False

    def check(self) -> None:
        """Check the path, and that there is one condition at most."""
        check_path(self)
        self.require("if_etag", "excludes if_absent", holds=not (self.if_absent and self.if_etag is not None))


@contract
class Append(Call[Appended], operation="files.append"):
    """Add `body` at the end of a file, which is made if it is missing; appends of all workers come one after the other.

    With `if_size_bytes` the file must have that size (0 if it is missing), so that a repetition changes nothing.
    """

    path: str
    body: Body = secret("body")
    durable: bool = True
    if_size_bytes: int | None = None

    def check(self) -> None:
        """Check the path and the size."""
        check_path(self)
        self.require_between("if_size_bytes", 0, 2**63)


@contract
class Read(Call[Content], operation="files.read"):
    """Read a whole file, up to `max_bytes`; a larger one is `BodyTooLarge`."""

    path: str
    max_bytes: int = 8 * 1024 * 1024

    def check(self) -> None:
        """Check the path and the bound."""
        check_path(self)
        self.require_between("max_bytes", 0, BODY_LIMIT_BYTES)


@contract
class ReadRange(Call[Chunk], operation="files.read_range"):
    """Read `size_bytes` from `offset_bytes`, fewer where the file ends."""

    path: str
    offset_bytes: int = 0
    size_bytes: int = 64 * 1024

    def check(self) -> None:
        """Check the path and the range."""
        check_path(self)
        self.require_between("offset_bytes", 0, 2**62)
        self.require_between("size_bytes", 0, BODY_LIMIT_BYTES)


@contract
class Tail(Call[Chunk], operation="files.tail"):
    """Read the last `lines` lines, or what came after `from_bytes`, at most `max_bytes`.

    With `wait_s`, a file that has nothing new is watched for so long. To follow, hand `next_bytes` of the answer on as
    `from_bytes` of the next call. A file that has become shorter is read from its start, and `rotated` says so.
    """

    path: str
    lines: int = 10
    from_bytes: int | None = None
    max_bytes: int = 1024 * 1024
    wait_s: float = 0.0

    def check(self) -> None:
        """Check the path and the bounds."""
        check_path(self)
        self.require_between("lines", 0, PAGE_LIMIT)
        self.require_between("from_bytes", 0, 2**62)
        self.require_between("max_bytes", 1, BODY_LIMIT_BYTES)
        self.require_between("wait_s", 0, 3600)


@contract
class Copy(Call[Written], operation="files.copy"):
    """Copy a file, on the worker, to `target`, whole or not at all. `if_absent` as in `Write`."""

    path: str
    target: str
    durable: bool = True
    if_absent: bool = False

    check = check_paths


@contract
class Move(Call[Moved], operation="files.move"):
    """Rename a file or a directory within a root, in one step. Between roots a file is copied, then deleted."""

    path: str
    target: str
    durable: bool = True
    if_absent: bool = False

    check = check_paths


@contract
class Delete(Call[Deleted], operation="files.delete"):
    """Delete a file, a link itself, or an empty directory; with `recursive` a directory and all that is beneath it."""

    path: str
    recursive: bool = False
    missing_ok: bool = False
    durable: bool = True

    check = check_path


@contract
class MakeDir(Call[Made], operation="files.make_dir"):
    """Make a directory and those above it; one that is there already is fine unless `exist_ok` is False."""

    path: str
    exist_ok: bool = True
    durable: bool = True

    check = check_path


@contract
class Stat(Call[Entry], operation="files.stat"):
    """Describe what is at a path; a link itself, not what it leads to."""

    path: str

    check = check_path


@contract
class Checksum(Call[Digest], operation="files.checksum"):
    """Compute the checksum of a file, however large. That of `sha256` is the file's etag."""

    path: str
    algorithm: Literal["sha256", "blake2b", "crc32c"] = "sha256"

    check = check_path


@contract
class List(Call[Listing], operation="files.list"):
    """List a directory by name. `pattern` is a glob of one name: `*`, `?`, `[a-z]`."""

    path: str
    pattern: str = "*"
    limit: int = 1000
    cursor: str | None = None

    def check(self) -> None:
        """Check the path, the pattern and the page."""
        check_path(self)
        self.require_text("pattern", limit=255, forbidden="\0/")
        check_page(self, most=10_000)


@contract
class Walk(Call[Walked], operation="files.walk"):
    """Give the paths beneath a directory; links are given, never followed.

    `pattern` is a glob of the path from there, in which `**` stands for any number of directories.
    """

    path: str
    pattern: str = "**"
    kind: Literal["file", "directory", "any"] = "file"
    max_depth: int = 255
    limit: int = 10_000
    cursor: str | None = None

    def check(self) -> None:
        """Check the path, the pattern, the depth and the page."""
        check_path(self)
        self.require_text("pattern", limit=QUERY_LIMIT)
        self.require_between("max_depth", 1, 255)
        check_page(self)


@contract
class ParseJson(Call[Parsed], operation="files.parse_json"):
    """Parse a JSON document of any size.

    `query` is a JSON pointer (RFC 6901: `/items/0/name`, "" for the whole) that names one value, or an item path
    (`items.item.name`, `item` standing for each element of an array) that names any number. With `limit`, an array
    that a pointer names is given as items, too.
    """

    path: str
    query: str = secret("named", default="")
    limit: int | None = None
    cursor: str | None = None

    def check(self) -> None:
        """Check the path, the query and the page."""
        check_path(self)
        check_query(self)
        check_page(self)


@contract
class ParseJsonl(Call[Parsed], operation="files.parse_jsonl"):
    """Parse a file of one JSON value a line; of each, `query` (a JSON pointer) names what is given."""

    path: str
    query: str = secret("named", default="")
    limit: int = 1000
    cursor: str | None = None

    def check(self) -> None:
        """Check the path, the query and the page."""
        check_path(self)
        check_query(self)
        self.require("query", "must be a JSON pointer", holds=not self.query or self.query.startswith("/"))
        check_page(self)


@contract
class ParseXml(Call[Parsed], operation="files.parse_xml"):
    """Parse an XML document of any size; one with a DOCTYPE is refused.

    `query` is a path of elements, `/feed/entry` or `//entry`, in which `*` is any element, and the last may be followed
    by `[@name='value']`, `/@name` or `/text()`. Names match whatever their namespace. Without a query the whole
    document is the value, up to 8 MiB. An element is `{"tag", "attributes", "text", "children"}`, empty parts left out.
    """

    path: str
    query: str = secret("named", default="")
    limit: int = 1000
    cursor: str | None = None

    def check(self) -> None:
        """Check the path, the query and the page."""
        check_path(self)
        check_query(self)
        check_page(self)


@contract
class ParseCsv(Call[Parsed], operation="files.parse_csv"):
    """Parse a file of rows; every value is text.

    If `first_row_names` the columns, a row is an object, and `columns` chooses among them; else a row is an array.
    """

    path: str
    columns: tuple[str, ...] = ()
    delimiter: str = ","
    first_row_names: bool = True
    limit: int = 1000
    cursor: str | None = None

    def check(self) -> None:
        """Check the path, the columns and the page."""
        check_path(self)
        self.require_text("delimiter", limit=1, forbidden='\0"\r\n')
        self.require("columns", "need first_row_names", holds=self.first_row_names or not self.columns)
        check_page(self)


@contract
class Stream(Call[Streamed], operation="files.stream"):
    """Copy a file (`path`) or an artifact to a file (`target`), or to a new artifact if there is no target.

    A chunk at a time, of any size, with progress in bytes; a cancelled one ends at the next chunk, and nothing is left.
    """

    path: str | None = None
    artifact: Artifact | None = None
    target: str | None = None
    media_type: str = Artifact.media_type
    durable: bool = True

    def check(self) -> None:
        """Check that there is one source, and a target that differs in kind or place."""
        self.require("path", "excludes artifact", holds=(self.path is None) != (self.artifact is None))
        for name in ("path", "target"):
            if getattr(self, name) is not None:
                check_path(self, name)
        self.require("target", "is needed for an artifact", holds=self.artifact is None or self.target is not None)


@contract
class Pack(Call[Packed], operation="files.pack"):
    """Make an archive of a file or a directory at `target`, whole or not at all. What is neither is refused."""

    path: str
    target: str
    format: ArchiveFormat = "tar.gz"
    max_bytes: int = 1024**3
    max_entries: int = 10_000
    durable: bool = True

    check = check_archive


@contract
class Unpack(Call[Unpacked], operation="files.unpack"):
    """Make a directory at `target` of what an archive holds, whole or not at all; it must be missing or empty.

    An archive with a link, a device, an absolute name or `..` is refused, and one that holds more than the bounds,
    whatever it says of itself. Without `format` the name tells.
    """

    path: str
    target: str
    format: ArchiveFormat | None = None
    max_bytes: int = 1024**3
    max_entries: int = 10_000
    durable: bool = True

    check = check_archive


@contract
class Step(Result):
    """One step of a batch: the operation is the field that is set."""

    write: Write | None = None
    append: Append | None = None
    read: Read | None = None
    read_range: ReadRange | None = None
    tail: Tail | None = None
    copy: Copy | None = None
    move: Move | None = None
    delete: Delete | None = None
    make_dir: MakeDir | None = None
    stat: Stat | None = None
    checksum: Checksum | None = None
    list: List | None = None

    def call(self) -> Call[Result] | None:
        """Give the call, None unless there is exactly one."""
        found = [each for each in vars(self).values() if each is not None]
        return found[0] if len(found) == 1 else None


@contract
class Batch(Call[Batched], operation="files.batch"):
    """Run up to 1000 steps, one after the other, in one message. A step that fails leaves no part of a file behind.

    Without `stop_on_error` every step is run. `Batch.of(files.Write(...), files.Delete(...))` makes one.
    """

    steps: tuple[Step, ...]
    stop_on_error: bool = False

    @classmethod
    def of(cls, *calls: Call[Result], stop_on_error: bool = False) -> Self:
        """Make a batch of calls.

        Raises:
            InvalidCall: if one cannot be a step.
        """
        names = [each.OPERATION.partition(".")[2] for each in calls]
        for index, (name, each) in enumerate(zip(names, calls, strict=True)):
            if each.QUEUE != cls.QUEUE or name not in Step.__dataclass_fields__:
                raise InvalidCall(cls.OPERATION, f"steps[{index}]", f"cannot be {each.OPERATION}")
        steps = (Step(**{name: each}) for name, each in zip(names, calls, strict=True))  # type: ignore[arg-type]
        return cls(tuple(steps), stop_on_error=stop_on_error)

    def check(self) -> None:
        """Check the number of steps, and that each is one call."""
        self.require("steps", f"must be 1 to {BATCH_LIMIT}", holds=0 < len(self.steps) <= BATCH_LIMIT)
        for index, each in enumerate(self.steps):
            self.require(f"steps[{index}]", "must hold exactly one call", holds=each.call() is not None)


@contract
class Stats(Call[FileStats], operation="files.stats"):
    """Give every counter and gauge of the worker that answers."""


@contract
class Health(Call[FileHealth], operation="files.health"):
    """Tell whether the roots of the worker that answers can be read and written."""
