"""The `files` queue's door: contracts to service methods."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaia.contracts import files
from tasks.runtime.services import assembled
from tasks.scope import Scope
from tasks.wiring import handles

if TYPE_CHECKING:
    from tasks.files.service import FilesService

service: "Callable[[], FilesService]" = assembled("tasks.files.assembly")


@handles(files.Read)
def read(call: files.Read, scope: Scope) -> files.Content:
    """Read a whole file."""
    return service().read(call, scope)


@handles(files.ReadRange)
def read_range(call: files.ReadRange, scope: Scope) -> files.Chunk:
    """Read a range of a file."""
    return service().read_range(call, scope)


@handles(files.Tail)
def tail(call: files.Tail, scope: Scope) -> files.Chunk:
    """Read the end of a file, or what was added to it."""
    return service().tail(call, scope)


@handles(files.Write)
def write(call: files.Write, scope: Scope) -> files.Written:
    """Put a file in place, whole or not at all."""
    return service().write(call, scope)


@handles(files.Append)
def append(call: files.Append, scope: Scope) -> files.Appended:
    """Add to the end of a file."""
    return service().append(call, scope)


@handles(files.Copy)
def copy(call: files.Copy, scope: Scope) -> files.Written:
    """Copy a file."""
    return service().copy(call, scope)


@handles(files.Move)
def move(call: files.Move, scope: Scope) -> files.Moved:
    """Move a file or a directory."""
    return service().move(call, scope)


@handles(files.Delete)
def delete(call: files.Delete, scope: Scope) -> files.Deleted:
    """Delete a file or a directory."""
    return service().delete(call, scope)


@handles(files.MakeDir)
def make_dir(call: files.MakeDir, scope: Scope) -> files.Made:
    """Make a directory."""
    return service().make_dir(call, scope)


@handles(files.Stat)
def stat(call: files.Stat, scope: Scope) -> files.Entry:
    """Describe what is at a path."""
    return service().stat(call, scope)


@handles(files.Checksum)
def checksum(call: files.Checksum, scope: Scope) -> files.Digest:
    """Compute a checksum."""
    return service().checksum(call, scope)


@handles(files.List)
def list(call: files.List, scope: Scope) -> files.Listing:  # noqa: A001 - the operation's name
    """List a directory."""
    return service().list(call, scope)


@handles(files.Walk)
def walk(call: files.Walk, scope: Scope) -> files.Walked:
    """Give the paths beneath a directory."""
    return service().walk(call, scope)


@handles(files.ParseJson)
def parse_json(call: files.ParseJson, scope: Scope) -> files.Parsed:
    """Parse a JSON document of any size."""
    return service().parse_json(call, scope)


@handles(files.ParseJsonl)
def parse_jsonl(call: files.ParseJsonl, scope: Scope) -> files.Parsed:
    """Parse lines of JSON."""
    return service().parse_jsonl(call, scope)


@handles(files.ParseXml)
def parse_xml(call: files.ParseXml, scope: Scope) -> files.Parsed:
    """Parse an XML document of any size."""
    return service().parse_xml(call, scope)


@handles(files.ParseCsv)
def parse_csv(call: files.ParseCsv, scope: Scope) -> files.Parsed:
    """Parse rows of text."""
    return service().parse_csv(call, scope)


@handles(files.Stream)
def stream(call: files.Stream, scope: Scope) -> files.Streamed:
    """Copy a file or an artifact, of any size."""
    return service().stream(call, scope)


@handles(files.Batch)
def batch(call: files.Batch, scope: Scope) -> files.Batched:
    """Run many operations in one message."""
    return service().batch(call, scope)


@handles(files.Pack)
def pack(call: files.Pack, scope: Scope) -> files.Packed:
    """Make an archive."""
    return service().pack(call, scope)


@handles(files.Unpack)
def unpack(call: files.Unpack, scope: Scope) -> files.Unpacked:
    """Make a directory of an archive."""
    return service().unpack(call, scope)


@handles(files.Stats)
def stats(call: files.Stats, scope: Scope) -> files.FileStats:
    """Give the worker's counters and gauges."""
    return service().stats(call, scope)


@handles(files.Health)
def health(call: files.Health, scope: Scope) -> files.FileHealth:
    """Tell whether the worker's roots can be used."""
    return service().health(call, scope)
