"""What the stores of large bodies share: how a body is taken from its source, named, and verified."""

import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO, Final, Protocol

from gaia.codec import Artifact
from gaia.errors import ArtifactMissing, FileFailed, FileMissing, InvalidCall

CHUNK_BYTES: Final = 1 << 20
DEFAULT_TTL_S: Final = 3600.0
NOT_STORED: Final = "is not stored, or has expired"

SHOWN_CHARACTERS: Final = 64
"""A forged id is cut there in an error."""

_ID = re.compile(r"[0-9a-f]{32}")


class Readable(Protocol):
    """A file opened to read bytes, as far as it is needed here."""

    def read(self, size: int, /) -> bytes | None:
        """Give at most so many bytes, none at the end."""


Source = bytes | Path | Readable
"""What can be put: bytes, the path of a file, or a file opened to read bytes."""


class Store(Protocol):
    """One place where large bodies lie. An id of 32 hexadecimal digits finds a body, nothing else of a reference."""

    def write(self, chunks: Iterable[bytes], *, size_bytes: int | None, media_type: str) -> Artifact:
        """Store a body whole or not at all; `size_bytes` is its size as far as that is known."""

    def open(self, artifact: Artifact) -> BinaryIO:
        """Open a body to be read once, from its start; its last bytes come only if size and checksum are right."""

    def refer(self, artifact: Artifact) -> Artifact:
        """Keep a body as long as one stored now."""

    def remove(self, artifact: Artifact) -> None:
        """Remove a body, if it is there."""


def is_id(name: str) -> bool:
    """Say whether a name may be that of a body."""
    return _ID.fullmatch(name) is not None


def require_id(artifact: Artifact) -> str:
    """Give the id of a reference.

    Raises:
        ArtifactMissing: if it is no id, so that it can name nothing outside a store.
        InvalidCall: if it is no reference.
    """
    if not isinstance(artifact, Artifact):
        raise InvalidCall("open", "artifact", f"must be what `put` gave, got {type(artifact).__name__}")
    if not is_id(artifact.id):
        # In ASCII, since a forged one may hold line breaks, or halves of surrogate pairs, which no encoding has.
        shown = ascii(artifact.id[:SHOWN_CHARACTERS])[1:-1]
        raise ArtifactMissing(shown[:SHOWN_CHARACTERS], "is no artifact id")
    return artifact.id


# --- sources


@contextmanager
def opened(source: Source) -> Iterator[tuple[Readable, int | None]]:
    """Open what is to be put; give its size, too, if it is known beforehand. A file of the caller stays open.

    Raises:
        FileMissing, FileFailed: a path that names no regular file or cannot be read.
        InvalidCall: if it is neither bytes, a path, nor a file.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        view = memoryview(source)
        yield io.BytesIO(source if view.c_contiguous else bytes(view)), view.nbytes
    elif isinstance(source, Path):
        with _regular(source) as file:
            yield file, os.fstat(file.fileno()).st_size
    elif callable(getattr(source, "read", None)):
        yield source, None
    else:
        raise InvalidCall("put", "source", f"must be bytes, a Path or a file, got {type(source).__name__}")


def read(file: Readable, most: int) -> bytes:
    """Read the next bytes of a source: as many as asked for, unless it ends.

    Raises:
        FileFailed: if it cannot be read.
        InvalidCall: if it gives something else than bytes.
    """
    found = io.BytesIO()
    while (left := most - found.tell()) > 0:
        try:
            chunk = file.read(left)
        except (OSError, ValueError) as failure:
            raise FileFailed(str(getattr(file, "name", type(file).__name__)), _reason(failure)) from None
        if not isinstance(chunk, bytes) or len(chunk) > left:
            raise InvalidCall("put", "source", "must be opened to read bytes")
        if not chunk:
            break
        found.write(chunk)
    return found.getvalue()


def chunks(file: Readable) -> Iterator[bytes]:
    """Give the rest of a source."""
    while chunk := read(file, CHUNK_BYTES):
        yield chunk


def _regular(path: Path) -> BinaryIO:
    try:
        # Without O_NONBLOCK a named pipe would wait for its writer.
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115 - the caller closes it; Path.open takes no opener
    except FileNotFoundError:
        raise FileMissing(str(path)) from None
    except (OSError, ValueError) as failure:
        raise FileFailed(str(path), _reason(failure)) from None
    if not S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise FileFailed(str(path), "is no regular file")
    return file


def _reason(failure: OSError | ValueError) -> str:
    return getattr(failure, "strerror", None) or str(failure)


# --- verification


class Tally:
    """The size and the SHA-256 of what has passed."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.size_bytes = 0
        self._sum = hashlib.sha256()

    def add(self, chunk: bytes | memoryview) -> None:
        """Count a chunk."""
        self.size_bytes += len(chunk)
        self._sum.update(chunk)

    def artifact(self, artifact_id: str, media_type: str) -> Artifact:
        """Give the reference to a body of what has passed."""
        return Artifact(artifact_id, self.size_bytes, self._sum.hexdigest(), media_type)

    def require(self, artifact: Artifact) -> None:
        """Check that what has passed is the whole body.

        Raises:
            ArtifactMissing: if it is not.
        """
        if self.size_bytes != artifact.size_bytes:
            raise ArtifactMissing(artifact.id, "does not have its size")
        if self._sum.hexdigest() != artifact.sha256:
            raise ArtifactMissing(artifact.id, "does not match its checksum")
