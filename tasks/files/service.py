"""Reading and writing files beneath the roots."""

import hashlib
import os

from gaia.codec import content
from gaia.contracts import files
from gaia.errors import BodyTooLarge
from tasks.files.replacement import CHUNK_BYTES, replace
from tasks.roots.roots import Roots, translated
from tasks.scope import Scope


class FilesService:
    """The operations of the `files` queue. It owns nothing: the roots are its caller's."""

    def __init__(self, *, roots: Roots) -> None:
        """Take the roots."""
        self._roots = roots

    def write(self, call: files.Write, scope: Scope) -> files.Written:
        """Put a body at a path, whole or not at all.

        Raises:
            PathDenied, FileMissing, FileFailed, NotConfigured, Cancelled, DeadlineExceeded
        """
        scope.check()
        body = content(call.body)
        with (
            self._roots.parent(call.path, make=True, durable=call.durable) as (directory, name),
            translated(call.path),
        ):
            replace(directory, name, body, durable=call.durable, check=scope.check)
        return files.Written(path=call.path, size_bytes=len(body), etag=etag(body))

    def read(self, call: files.Read, scope: Scope) -> files.Content:
        """Read a whole file. One that is replaced meanwhile is read as it was when it was opened.

        Raises:
            PathDenied, FileMissing, FileFailed, BodyTooLarge, NotConfigured, Cancelled, DeadlineExceeded
        """
        scope.check()
        with self._roots.reading(call.path) as fd, translated(call.path):
            body = _content(fd, call, scope)
        return files.Content(path=call.path, body=body, size_bytes=len(body), etag=etag(body))

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


def etag(body: bytes) -> str:
    """Give the tag of a content: its SHA-256 in hexadecimal.

    A tag of mtime, size and inode would need no pass over the content, but two writes within one tick of the file
    system's clock may share all three (a freed inode number is used again), and a copy or a restore changes the tag
    of an unchanged content. The content is in memory on both ways, and the pass costs less than the copy to Redis.
    """
    return hashlib.sha256(body).hexdigest()


def _content(fd: int, call: files.Read, scope: Scope) -> bytes:
    size = os.fstat(fd).st_size
    too_large = BodyTooLarge(call.path, call.max_bytes)
    if size > call.max_bytes:
        raise too_large
    chunks, total = [], 0
    # The file may grow while it is read, and those of /proc have no size at all: read until the end.
    while chunk := os.read(fd, min(max(size - total, 0) + 4096, CHUNK_BYTES)):
        scope.check()
        chunks.append(chunk)
        total += len(chunk)
        if total > call.max_bytes:
            raise too_large
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
