"""What tells one content from another: etags and checksums.

An etag is the SHA-256 of a content in hexadecimal. A tag of mtime, size and inode would need no pass over the content,
but two writes within one tick of the file system's clock may share all three (a freed inode number is used again), and
a copy or a restore changes the tag of an unchanged content. Where a content is in memory anyway the pass costs less
than its copy to Redis.
"""

import hashlib
import os
from collections.abc import Callable
from typing import Final, Protocol

import google_crc32c

READ_BYTES: Final = 1 << 20


class Sum(Protocol):
    """A checksum under way, as those of hashlib."""

    def update(self, data: bytes, /) -> None:
        """Take the next bytes in."""

    def hexdigest(self) -> str:
        """Give what it is so far, in hexadecimal."""


class Crc32c:
    """CRC-32C (Castagnoli, RFC 3720 appendix B.4), eight hexadecimal digits."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._value = 0

    def update(self, data: bytes, /) -> None:
        """Take the next bytes in."""
        self._value = google_crc32c.extend(self._value, data)

    def hexdigest(self) -> str:
        """Give what it is so far."""
        return f"{self._value:08x}"


ALGORITHMS: Final[dict[str, Callable[[], Sum]]] = {
    "sha256": hashlib.sha256,
    "blake2b": hashlib.blake2b,
    "crc32c": Crc32c,
}


def etag(body: bytes) -> str:
    """Give the tag of a content."""
    return hashlib.sha256(body).hexdigest()


def of_descriptor(fd: int, check: Callable[[], None], algorithm: str = "sha256") -> str:
    """Give the checksum of what is left to read; `check` is asked before each mebibyte.

    Raises:
        OSError: as read(2), and what `check` raises.
    """
    found = ALGORITHMS[algorithm]()
    while chunk := os.read(fd, READ_BYTES):
        check()
        found.update(chunk)
    return found.hexdigest()
