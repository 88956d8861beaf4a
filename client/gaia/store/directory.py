"""Large bodies as files beneath one directory that producers and workers share.

A file's modification time is when it expires, so an expiry needs neither an index nor Redis; the clocks of the
machines must agree within a minute. A body gets its name by a rename after its content was written and synced: a
writer that dies leaves a draft, which `sweep` removes. `gaia.store.tree` says how the files lie.
"""

import errno
import heapq
import io
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO, Final
from urllib.parse import unquote, urlsplit

from gaia.codec import Artifact
from gaia.errors import ArtifactMissing, ArtifactsFull, ArtifactsUnavailable, BodyTooLarge
from gaia.store import bodies, tree
from gaia.store.bodies import CHUNK_BYTES, DEFAULT_TTL_S, Tally

URL_FORM: Final = "must be file:///directory or an absolute path"

QUOTA_BYTES: Final = 16 * 1024 * 1024 * 1024
STEP_BYTES: Final = 16 * 1024 * 1024
"""A body whose size is not known claims at most so much ahead, and never more than a share of what is free."""

SHARE: Final = 8
"""Several streams at once then leave room to each other."""

# No such file, or one of a kind that no body is: a link, a link in place of a directory, a socket.
_NO_BODY: Final = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO)


def directory_of(url: str) -> Path:
    """Give the directory that a setting names.

    Raises:
        ValueError: if it is neither `file:///directory` nor an absolute path.
    """
    try:
        text = url if url.startswith("/") else _path_of(url)
    except ValueError:
        text = ""
    if not text.startswith("/") or "\0" in text:
        raise ValueError(URL_FORM)
    return Path(text)


def _path_of(url: str) -> str:
    parts = urlsplit(url)
    local = parts.scheme == "file" and parts.netloc in {"", "localhost"} and not parts.query and not parts.fragment
    return unquote(parts.path) if local else ""


@dataclass(frozen=True)
class Swept:
    """What a sweep removed; `more` says that something was left, `failures` why it could not be removed."""

    files: int
    size_bytes: int
    more: bool
    failures: tuple[str, ...] = ()


class DirectoryArtifacts:
    """Bodies as files of mode 0600: producers and workers run as the same user, on whatever machine."""

    def __init__(
        self,
        directory: Path,
        *,
        ttl_s: float = DEFAULT_TTL_S,
        quota_bytes: int = QUOTA_BYTES,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Use a directory, which is looked for at each use; a missing one is never made: it may be a lost mount."""
        self._directory = directory
        self._ttl_s = ttl_s
        self._quota_bytes = quota_bytes
        self._now = now

    def write(self, chunks: Iterable[bytes], *, size_bytes: int | None, media_type: str) -> Artifact:
        """Store a body, synced to the disk. Each call looks at every file there to hold the quota.

        Raises:
            BodyTooLarge: over the whole quota.
            ArtifactsFull: over what is left of it.
            ArtifactsUnavailable: if the directory cannot be written.
        """
        artifact_id, tally = secrets.token_hex(16), Tally()
        with self._opened() as root, tree.draft(root, artifact_id) as (fd, publish):
            room = 0
            for chunk in chunks:
                tally.add(chunk)
                if tally.size_bytes > room:
                    room = self._claim(root, fd, tally.size_bytes, size_bytes or 0)
                tree.write(fd, chunk)
            os.ftruncate(fd, tally.size_bytes)
            tree.expire_at(fd, self._now() + self._ttl_s)
            os.fsync(fd)
            publish()
        return tally.artifact(artifact_id, media_type)

    def open(self, artifact: Artifact) -> BinaryIO:
        """Open a body; it is verified while it is read.

        Raises:
            ArtifactMissing: if it is not there, or is not what the reference says; the latter also while it is read.
            ArtifactsUnavailable: if the directory cannot be read; also while it is read.
        """
        with self._opened() as root:
            fd, _ = self._find(root, artifact)
        return io.BufferedReader(_Verified(fd, artifact, self._directory), CHUNK_BYTES)

    def refer(self, artifact: Artifact) -> Artifact:
        """Keep a body as long as one stored now, or longer if it already is.

        Raises:
            ArtifactMissing, ArtifactsUnavailable: as `open`, the content unread.
        """
        with self._opened() as root:
            fd, expires_at = self._find(root, artifact)
            try:
                if expires_at < self._now() + self._ttl_s:
                    self._prolong(root, fd, artifact)
            finally:
                os.close(fd)
        return artifact

    def _prolong(self, root: int, fd: int, artifact: Artifact) -> None:
        with tree.turn(root):
            # Another may have given it a longer life meanwhile.
            tree.expire_at(fd, max(os.fstat(fd).st_mtime, self._now() + self._ttl_s))
        if os.fstat(fd).st_nlink == 0:
            raise ArtifactMissing(artifact.id, bodies.NOT_STORED)

    def remove(self, artifact: Artifact) -> None:
        """Remove a body; nothing is done if it has gone already.

        Raises:
            ArtifactsUnavailable: if the directory cannot be used.
        """
        with self._opened() as root:
            tree.remove_body(root, bodies.require_id(artifact))

    def sweep(self, *, most: int, enough: Callable[[], bool]) -> Swept:
        """Remove what has expired, and what dead writers left: the oldest first, at most so many, until `enough`.

        What cannot be removed is passed over.

        Raises:
            ArtifactsUnavailable: if the directory cannot be used.
        """
        files = size_bytes = 0
        failures: list[OSError] = []
        with self._opened() as root:
            now = self._now()
            due = heapq.nsmallest(most, (each for each in tree.files(root, failures.append) if each.due_at <= now))
            for each in due:
                if enough():
                    break
                try:
                    removed = tree.remove(root, each)
                except OSError as failure:
                    failures.append(failure)
                    continue
                files += removed
                size_bytes += removed * each.size_bytes
        more = files < len(due) or len(due) == most
        return Swept(files, size_bytes, more=more, failures=tuple(map(_reason, failures)))

    def used_bytes(self) -> int:
        """Give the size of all bodies, the expired and those being written included.

        Raises:
            ArtifactsUnavailable: if the directory cannot be used.
        """
        with self._opened() as root:
            return tree.used_bytes(root)

    def trouble(self) -> str:
        """Say why no body could be stored now; "" if one could, as far as a look tells."""
        try:
            with self._opened() as root:
                read_only = os.fstatvfs(root).f_flag & os.ST_RDONLY
                if read_only or not os.access(".", os.W_OK | os.X_OK, dir_fd=root, effective_ids=True):
                    return str(ArtifactsUnavailable(str(self._directory), "it cannot be written"))
        except ArtifactsUnavailable as failure:
            return str(failure)
        return ""

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Open the directory; what the operating system refuses inside the block is ours."""
        try:
            # The directory itself may be a link: it is named by settings.
            root = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                yield root
            finally:
                os.close(root)
        except OSError as failure:
            raise _unavailable(self._directory, failure) from None

    def _find(self, root: int, artifact: Artifact) -> tuple[int, float]:
        """Open a body that has not expired and has its size; give when it expires, too."""
        name = bodies.require_id(artifact)
        try:
            fd = tree.open_body(root, name)
        except OSError as failure:
            if failure.errno not in _NO_BODY:
                raise
            raise ArtifactMissing(name, bodies.NOT_STORED) from None
        found = os.fstat(fd)
        reason = None
        if not S_ISREG(found.st_mode) or found.st_mtime <= self._now():
            reason = bodies.NOT_STORED
        elif found.st_size != artifact.size_bytes:
            reason = "does not have its size"
        if reason is not None:
            os.close(fd)
            raise ArtifactMissing(name, reason)
        return fd, found.st_mtime

    def _claim(self, root: int, fd: int, needed_bytes: int, expected_bytes: int) -> int:
        """Give how large a draft may grow: to the size expected, else as far as is needed now and a step ahead.

        Every writer claims by the size of its file before it looks at the others', so two never overlook each other,
        turns or not. Without turns two may refuse each other what one of them could have had.
        """
        claim_bytes = max(needed_bytes, expected_bytes)
        if claim_bytes > self._quota_bytes:
            raise BodyTooLarge("the artifact directory", self._quota_bytes)
        ahead = 0 if claim_bytes == expected_bytes else STEP_BYTES
        with tree.turn(root):
            os.ftruncate(fd, claim_bytes + ahead)
            free = self._quota_bytes - (tree.used_bytes(root) - ahead)
            if free < 0:
                # In its turn, since the next one shall not see what was claimed in vain.
                os.ftruncate(fd, 0)
                raise ArtifactsFull(claim_bytes, self._quota_bytes)
            room = claim_bytes + min(ahead, free // SHARE)
            os.ftruncate(fd, room)
        return room


class _Verified(io.RawIOBase):
    """The bytes of a body's file. The last of them are given only if all of them are right."""

    def __init__(self, fd: int, artifact: Artifact, directory: Path) -> None:
        self._fd = fd
        self._artifact = artifact
        self._directory = directory
        self._tally = Tally()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]  # BufferedReader hands over a view
        wanted = memoryview(buffer)[: self._artifact.size_bytes - self._tally.size_bytes]
        try:
            count = os.readv(self._fd, [wanted]) if wanted else 0
        except OSError as failure:
            raise _unavailable(self._directory, failure) from None
        self._tally.add(wanted[:count])
        if count == 0 or self._tally.size_bytes == self._artifact.size_bytes:
            self._tally.require(self._artifact)
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


def _unavailable(directory: Path, failure: OSError) -> ArtifactsUnavailable:
    return ArtifactsUnavailable(str(directory), _reason(failure))


def _reason(failure: OSError) -> str:
    return failure.strerror or type(failure).__name__
