"""Copying between files and artifacts, a chunk at a time, of any size, at a bounded pace."""

import os
from collections.abc import Callable
from typing import Final

from gaia.codec import Artifact
from gaia.contracts import files
from gaia.errors import NotConfigured
from gaia.store.artifacts import Artifacts
from gaia.store.bodies import Readable
from tasks.files.drafts import Sink
from tasks.files.writing import Terms, Writer
from tasks.roots.roots import Roots, ours
from tasks.scope import Scope

CHUNK_BYTES: Final = 256 * 1024
"""Between two chunks a copy looks whether it was cancelled."""

Pace = Callable[[int, Scope], int]
"""Waits until some of so many bytes may move, within the scope; gives how many may, at least one."""


def unbounded(size_bytes: int, scope: Scope) -> int:
    """Let everything move at once: the pace where no bandwidth is set."""
    del scope
    return size_bytes


class Streamer:
    """Copies files and artifacts. It owns nothing."""

    def __init__(self, roots: Roots, writer: Writer, artifacts: Artifacts | None, pace: Pace = unbounded) -> None:
        """Take the roots, and the store of artifacts if there is one."""
        self._roots = roots
        self._writer = writer
        self._artifacts = artifacts
        self._pace = pace

    def stream(self, call: files.Stream, scope: Scope) -> files.Streamed:
        """Copy what the call names to where it says.

        Raises:
            ArtifactMissing, ArtifactTooLarge, ArtifactsFull, ArtifactsUnavailable, BodyTooLarge: of the store.
            PathDenied, FileMissing, FileFailed, DiskFull, QuotaExceeded, FileBusy, NotConfigured
            Cancelled, DeadlineExceeded
        """
        begun = scope.clock.monotonic()
        artifact: Artifact | None = None
        if call.artifact is not None:
            with self._store().open(call.artifact) as body:
                source = _Source(body, call.artifact.size_bytes, scope, self._pace)
                size, sha256 = self._to_file(call, source, scope)
        else:
            path = str(call.path)
            with self._roots.reading(path) as fd:
                source = _Source(_File(fd, path), _size(fd), scope, self._pace)
                if call.target is None:
                    artifact = self._store().put(source, media_type=call.media_type)
                    size, sha256 = artifact.size_bytes, artifact.sha256
                else:
                    size, sha256 = self._to_file(call, source, scope)
        scope.progress(size, size)
        elapsed_s = round(scope.clock.monotonic() - begun, 6)
        return files.Streamed(size_bytes=size, sha256=sha256, elapsed_s=elapsed_s, artifact=artifact)

    def _to_file(self, call: files.Stream, source: "_Source", scope: Scope) -> tuple[int, str]:
        def fill(sink: Sink) -> None:
            while chunk := source.read(CHUNK_BYTES):
                sink.write(chunk)

        written = self._writer.put(str(call.target), fill, Terms(durable=call.durable), scope)
        return written.size_bytes, written.etag

    def _store(self) -> Artifacts:
        if self._artifacts is None:
            raise NotConfigured("GAIA_RESULT_URL", "artifacts are kept there")
        return self._artifacts


class _Source:
    """What is copied: bounded by the scope, paced, and its progress told."""

    def __init__(self, inner: Readable, total: int, scope: Scope, pace: Pace) -> None:
        self._inner = inner
        self._total = total
        self._scope = scope
        self._pace = pace
        self._done = 0

    def read(self, size: int, /) -> bytes:
        self._scope.check()
        found = self._inner.read(self._pace(min(size, CHUNK_BYTES), self._scope)) or b""
        self._done += len(found)
        if found:
            self._scope.progress(self._done, max(self._total, self._done + 1))
        return found


class _File:
    """A descriptor as a source, whose failures name the caller's path."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path

    def read(self, size: int, /) -> bytes:
        try:
            return os.read(self._fd, size)
        except OSError as failure:
            raise ours(self._path, failure) from None


def _size(fd: int) -> int:
    return os.fstat(fd).st_size
