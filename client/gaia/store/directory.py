"""Large bodies as files beneath one directory that producers and workers share.

    incoming/<id>.<random>    bodies that are being written; nobody reads them
    <x>/<y>/<id>              whole bodies, x and y the first digits of the id

A file's modification time is when it expires, so an expiry needs neither an index nor Redis; the clocks of the
machines must agree within a minute. A body gets its name by a rename after its content was written and synced: a
writer that dies leaves a file in `incoming`, which `sweep` removes. No link is followed beneath the directory.
"""

import errno
import heapq
import io
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from gaia.codec import Artifact
from gaia.errors import ArtifactMissing, ArtifactsFull, ArtifactsUnavailable, BodyTooLarge
from gaia.store import bodies
from gaia.store.bodies import CHUNK_BYTES, DEFAULT_TTL_S, Tally

URL_FORM: Final = "must be file:///directory or an absolute path"

QUOTA_BYTES: Final = 16 * 1024 * 1024 * 1024
STEP_BYTES: Final = 16 * 1024 * 1024
"""Room is claimed in steps for a body whose size is not known beforehand."""

DRAFT_S: Final = 3600.0
"""A file in `incoming` that nobody wrote to for so long has lost its writer."""

SKEW_S: Final = 60.0
"""An expired body is removed that much later, since the clocks of two machines differ."""

INCOMING: Final = "incoming"

_DIGITS = "0123456789abcdef"
_DRAFT = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{16}")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# open(2): O_NONBLOCK, since a named pipe would wait for a writer.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
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


class _File(NamedTuple):
    """A file of ours: when it may go, where it lies, its size."""

    due_at: float
    place: str
    name: str
    size_bytes: int


@dataclass(frozen=True)
class Swept:
    """What a sweep removed; `more` says that it stopped at its bound."""

    files: int
    size_bytes: int
    more: bool


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
        with self._opened() as root, _draft(root, artifact_id) as (fd, publish):
            room = 0
            for chunk in chunks:
                tally.add(chunk)
                if tally.size_bytes > room:
                    room = self._claim(root, fd, tally.size_bytes, size_bytes or 0)
                _write(fd, chunk)
            os.ftruncate(fd, tally.size_bytes)
            _expire_at(fd, self._now() + self._ttl_s)
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
                    _expire_at(fd, self._now() + self._ttl_s)
            finally:
                os.close(fd)
        return artifact

    def sweep(self, *, most: int, enough: Callable[[], bool]) -> Swept:
        """Remove what has expired, and what dead writers left: the oldest first, at most so many, until `enough`.

        Raises:
            ArtifactsUnavailable: if the directory cannot be used.
        """
        files = size_bytes = 0
        with self._opened() as root:
            now = self._now()
            due = heapq.nsmallest(most, (each for each in _files(root) if each.due_at <= now))
            for each in due:
                if enough():
                    break
                with _beneath(root, each.place) as fd, suppress(FileNotFoundError):
                    os.unlink(each.name, dir_fd=fd)
                    files += 1
                    size_bytes += each.size_bytes
        return Swept(files, size_bytes, more=files < len(due) or len(due) == most)

    def used_bytes(self) -> int:
        """Give the size of all bodies, the expired and those being written included.

        Raises:
            ArtifactsUnavailable: if the directory cannot be used.
        """
        with self._opened() as root:
            return _used_bytes(root)

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
            with _beneath(root, _place(name)) as shelf:
                fd = os.open(name, _READ, dir_fd=shelf)
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

        Every writer claims by the size of its file before it looks at the others', so two never overlook each other.
        """
        claim_bytes = max(needed_bytes, expected_bytes)
        if claim_bytes > self._quota_bytes:
            raise BodyTooLarge("the artifact directory", self._quota_bytes)
        wish = claim_bytes if expected_bytes else 2 * claim_bytes + STEP_BYTES
        os.ftruncate(fd, wish)
        room = wish - max(0, _used_bytes(root) - self._quota_bytes)
        if room < claim_bytes:
            raise ArtifactsFull(claim_bytes, self._quota_bytes)
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
    return ArtifactsUnavailable(str(directory), failure.strerror or type(failure).__name__)


def _place(name: str) -> str:
    return f"{name[0]}/{name[1]}"


@contextmanager
def _beneath(root: int, place: str, *, make: bool = False) -> Iterator[int]:
    """Open a directory beneath another, one step at a time: a link on the way is refused."""
    fd = os.dup(root)
    try:
        for step in place.split("/"):
            if make:
                _make(fd, step)
            inner = os.open(step, _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = inner
        yield fd
    finally:
        os.close(fd)


def _make(fd: int, name: str) -> None:
    """Make a directory unless it is there; it stays when a power cut follows."""
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=fd)
        os.fsync(fd)


@contextmanager
def _draft(root: int, artifact_id: str) -> Iterator[tuple[int, Callable[[], None]]]:
    """Open a new file to write to, with what makes it a body; unless that was called it is gone at the end."""
    name = f"{artifact_id}.{secrets.token_hex(8)}"
    with _beneath(root, INCOMING, make=True) as incoming:
        fd = os.open(name, _CREATE, 0o600, dir_fd=incoming)

        def publish() -> None:
            with _beneath(root, _place(artifact_id), make=True) as shelf:
                os.rename(name, artifact_id, src_dir_fd=incoming, dst_dir_fd=shelf)
                os.fsync(shelf)

        try:
            yield fd, publish
        finally:
            os.close(fd)
            with suppress(FileNotFoundError):  # it was renamed
                os.unlink(name, dir_fd=incoming)


def _write(fd: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(fd, rest[:CHUNK_BYTES]) :]


def _expire_at(fd: int, moment: float) -> None:
    os.utime(fd, (moment, moment))


def _used_bytes(root: int) -> int:
    return sum(each.size_bytes for each in _files(root))


def _files(root: int) -> Iterator[_File]:
    """Give every file of ours; links and whatever else lies there are passed over."""
    places = [INCOMING, *(f"{first}/{second}" for first in _DIGITS for second in _DIGITS)]
    for place in places:
        ours = _DRAFT.fullmatch if place == INCOMING else bodies.is_id
        with suppress(FileNotFoundError, NotADirectoryError), _beneath(root, place) as fd, os.scandir(fd) as entries:
            for each in entries:
                if ours(each.name):
                    yield from _file(place, each)


def _file(place: str, entry: "os.DirEntry[str]") -> Iterator[_File]:
    with suppress(FileNotFoundError):  # it has gone meanwhile
        found = entry.stat(follow_symlinks=False)
        due_at = found.st_mtime + SKEW_S
        if place == INCOMING:
            # A writer that died right before the rename had set the time of expiry; the change time is not its to set.
            due_at = min(found.st_mtime, found.st_ctime) + DRAFT_S
        if S_ISREG(found.st_mode):
            yield _File(due_at, place, entry.name, found.st_size)
