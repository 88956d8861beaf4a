"""The operations of the `files` queue."""

import logging
from collections.abc import Callable
from typing import Any

from gaia.codec import content
from gaia.contracts import files
from gaia.contracts.base import Call
from gaia.errors import DiskFull, FileFailed, FileMissing, InvalidSetting, NotConfigured, PathDenied
from gaia.store.artifacts import Artifacts
from gaia.store.roster import KnownRoot, Roster
from tasks.files import batches, json_documents, states, tables, xml_documents
from tasks.files.accounts import Accounts
from tasks.files.drafts import Sink
from tasks.files.listing import Lister
from tasks.files.meter import Meter, Passage
from tasks.files.moving import Mover
from tasks.files.packing import Packer
from tasks.files.pages import Document
from tasks.files.reading import Reader
from tasks.files.streams import Pace, Streamer, unbounded
from tasks.files.together import Together
from tasks.files.unpacking import Unpacker
from tasks.files.whereabouts import Holders, Whereabouts
from tasks.files.writing import Terms, Writer
from tasks.roots.roots import Roots, translated
from tasks.scope import Scope

_Parse = files.ParseJson | files.ParseJsonl | files.ParseXml | files.ParseCsv

MAX_OPERATIONS = 500

log = logging.getLogger(__name__)


class FilesService:
    """The roots are its caller's; its own are the gate and the counters.

    Every operation raises `PathDenied`, `FileMissing` and `FileFailed` of its paths, `NotConfigured` without roots,
    `PoolExhausted` when too many run at once, `Cancelled` and `DeadlineExceeded` of its call; one that writes also
    `DiskFull`, `QuotaExceeded` and `FileBusy`. What else it raises is said at each.
    """

    def __init__(
        self,
        *,
        roots: Roots,
        artifacts: Artifacts | None = None,
        pace: Pace = unbounded,
        max_operations: int = MAX_OPERATIONS,
        worker: Callable[[], str] = lambda: "local",
        holders: Holders | None = None,
    ) -> None:
        """Take the roots, the store of artifacts, the pace of streams, and what names the worker for statistics.

        `holders` tells who has the roots that are not here.
        """
        self._roots = roots
        self._worker = worker
        self._whereabouts = Whereabouts(roots, holders)
        self._meter = Meter(max_operations)
        self._accounts = Accounts(roots)
        self._reader = Reader(roots)
        self._lister = Lister(roots)
        self._writer = Writer(roots, self._accounts)
        self._mover = Mover(roots, self._accounts, self._writer)
        self._together = Together(roots, self._writer, self._meter)
        self._streamer = Streamer(roots, self._writer, artifacts, pace)
        self._packer = Packer(roots, self._writer)
        self._unpacker = Unpacker(roots, self._writer)
        self._steps: dict[str, batches.Perform] = {
            name: getattr(self, name) for name in files.Step.__dataclass_fields__
        }

    def start(self, roster: Roster) -> None:
        """Compare the roots with those that the cluster knows, and remove what killed writers left in them.

        For the start of a worker. A root that cannot be used now is passed over: `health` tells of it.

        Raises:
            RootMismatch: a root is another directory.
            Unreachable: Redis did not answer.
        """
        for name in self._roots.names:
            try:
                found = self._roots.identity(name)
                roster.claim(KnownRoot(name, found, name in self._roots.local))
                removed = self._roots.annex(f"{name}:").sweep()
            except (NotConfigured, InvalidSetting, FileFailed, FileMissing, DiskFull, PathDenied, OSError) as failure:
                log.warning("root %r cannot be used now, and calls about it fail until it can: %s", name, failure)
                continue
            if removed:
                log.info("root %r: removed %d files of writers that were killed", name, removed)
        self._accounts.recount()

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    # --- reading

    def read(self, call: files.Read, scope: Scope) -> files.Content:
        """Read a whole file. One that is replaced meanwhile is read as it was when it was opened.

        Raises:
            BodyTooLarge: over the call's bound.
        """
        with self._passage("read", call, scope) as passage:
            found = self._reader.read(call, scope)
            passage.read_bytes = found.size_bytes
            return found

    def read_range(self, call: files.ReadRange, scope: Scope) -> files.Chunk:
        """Read a range of a file."""
        with self._passage("read_range", call, scope) as passage:
            found = self._reader.read_range(call, scope)
            passage.read_bytes = len(found.body)
            return found

    def tail(self, call: files.Tail, scope: Scope) -> files.Chunk:
        """Read the end of a file, or what was added to it. It waits as long as the call says."""
        with self._passage("tail", call, scope) as passage:
            found = self._reader.tail(call, scope)
            passage.read_bytes = len(found.body)
            return found

    def checksum(self, call: files.Checksum, scope: Scope) -> files.Digest:
        """Compute a checksum."""
        with self._passage("checksum", call, scope) as passage:
            found = self._reader.checksum(call, scope)
            passage.read_bytes = found.size_bytes
            return found

    # --- writing

    def write(self, call: files.Write, scope: Scope) -> files.Written:
        """Put a body at a path, whole or not at all.

        Raises:
            PreconditionFailed: the file is not what the call asks for.
        """
        with self._passage("write", call, scope) as passage:
            body = content(call.body)
            terms = Terms(durable=call.durable, if_etag=call.if_etag, if_absent=call.if_absent)
            written = self._writer.put(call.path, lambda sink: _write(sink, body), terms, scope)
            passage.written_bytes = written.size_bytes
            return written

    def append(self, call: files.Append, scope: Scope) -> files.Appended:
        """Add a body at the end of a file.

        Raises:
            PreconditionFailed: the file does not have the size that the call asks for.
        """
        with self._passage("append", call, scope) as passage:
            appended = self._writer.append(call, scope)
            passage.written_bytes = appended.size_bytes - appended.offset_bytes
            return appended

    def copy(self, call: files.Copy, scope: Scope) -> files.Written:
        """Copy a file.

        Raises:
            PreconditionFailed: the target exists, and the call forbids that.
        """
        with self._passage("copy", call, scope) as passage:
            written = self._mover.copy(call, scope)
            passage.read_bytes = passage.written_bytes = written.size_bytes
            return written

    def move(self, call: files.Move, scope: Scope) -> files.Moved:
        """Move a file or a directory.

        Raises:
            PreconditionFailed: the target exists, and the call forbids that.
        """
        with self._passage("move", call, scope):
            return self._mover.move(call, scope)

    def delete(self, call: files.Delete, scope: Scope) -> files.Deleted:
        """Delete a file or a directory."""
        with self._passage("delete", call, scope):
            return self._mover.delete(call, scope)

    def make_dir(self, call: files.MakeDir, scope: Scope) -> files.Made:
        """Make a directory and those above it."""
        with self._passage("make_dir", call, scope):
            return self._mover.make_dir(call, scope)

    # --- looking

    def stat(self, call: files.Stat, scope: Scope) -> files.Entry:
        """Describe what is at a path."""
        with self._passage("stat", call, scope):
            return self._lister.stat(call, scope)

    def list(self, call: files.List, scope: Scope) -> files.Listing:
        """Give a page of a directory."""
        with self._passage("list", call, scope):
            return self._lister.list(call, scope)

    def walk(self, call: files.Walk, scope: Scope) -> files.Walked:
        """Give a page of the paths beneath a directory.

        Raises:
            InvalidCall: the cursor is none.
        """
        with self._passage("walk", call, scope):
            return self._lister.walk(call, scope)

    # --- parsing; each raises BadDocument, BodyTooLarge, InvalidCall and PreconditionFailed, as its module says

    def parse_json(self, call: files.ParseJson, scope: Scope) -> files.Parsed:
        """Parse a JSON document."""
        return self._parsed("parse_json", call, scope, lambda each: json_documents.parse(call, each))

    def parse_jsonl(self, call: files.ParseJsonl, scope: Scope) -> files.Parsed:
        """Parse lines of JSON."""
        return self._parsed("parse_jsonl", call, scope, lambda each: tables.parse_jsonl(call, each))

    def parse_xml(self, call: files.ParseXml, scope: Scope) -> files.Parsed:
        """Parse an XML document."""
        return self._parsed("parse_xml", call, scope, lambda each: xml_documents.parse(call, each))

    def parse_csv(self, call: files.ParseCsv, scope: Scope) -> files.Parsed:
        """Parse rows of text."""
        return self._parsed("parse_csv", call, scope, lambda each: tables.parse_csv(call, each))

    # --- many at once

    def stream(self, call: files.Stream, scope: Scope) -> files.Streamed:
        """Copy a file or an artifact; raises what `Streamer.stream` does."""
        with self._passage("stream", call, scope) as passage:
            found = self._streamer.stream(call, scope)
            passage.read_bytes = found.size_bytes if call.path is not None else 0
            passage.written_bytes = found.size_bytes if call.target is not None else 0
            return found

    def batch(self, call: files.Batch, scope: Scope) -> files.Batched:
        """Run the steps of a batch. A step, or a group of writes, passes the gate; the batch takes no place there."""
        self._whereabouts.require_batch_here(call)
        return batches.run(call, self._steps, self._together, scope)

    def pack(self, call: files.Pack, scope: Scope) -> files.Packed:
        """Make an archive.

        Raises:
            ArchiveRefused: it would hold more than the bounds, or what is neither file nor directory.
        """
        with self._passage("pack", call, scope) as passage:
            found = self._packer.pack(call, scope)
            passage.read_bytes, passage.written_bytes = found.content_bytes, found.size_bytes
            return found

    def unpack(self, call: files.Unpack, scope: Scope) -> files.Unpacked:
        """Make a directory of an archive.

        Raises:
            ArchiveRefused: it holds more than the bounds, or what is not let out of it, or is none.
        """
        with self._passage("unpack", call, scope) as passage:
            found = self._unpacker.unpack(call, scope)
            passage.written_bytes = found.content_bytes
            return found

    # --- this worker

    def stats(self, call: files.Stats, scope: Scope) -> files.FileStats:
        """Give every counter and gauge."""
        del call
        return self._meter.stats(self._worker(), states.of_roots(self._roots, scope))

    def health(self, call: files.Health, scope: Scope) -> files.FileHealth:
        """Tell how the roots are."""
        del call
        return states.health(states.of_roots(self._roots, scope), self._meter)

    def _passage(self, name: str, call: Call[Any], scope: Scope) -> Passage:
        self._whereabouts.require_here(call)
        return self._meter.operation(name, scope)

    def _parsed(self, name: str, call: _Parse, scope: Scope, parse: Callable[[Document], files.Parsed]) -> files.Parsed:
        with self._passage(name, call, scope) as passage, self._roots.reading(call.path) as fd, translated(call.path):
            document = Document(fd, call.path, scope)
            passage.read_bytes = document.size_bytes if document.small else 0
            return parse(document)


def _write(sink: Sink, body: bytes) -> None:
    sink.write(body)
