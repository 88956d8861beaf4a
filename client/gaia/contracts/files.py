"""Calls of the `files` queue: files beneath named roots.

A path is `root:relative/path`. The roots are directories that the worker's settings name; nothing leaves them.
"""

from gaia.codec import Body
from gaia.contracts.base import Call, Result, contract, secret

PATH_LIMIT = 4096
"""PATH_MAX of Linux, limits.h."""


def check_path(call: Call[object], field_name: str = "path") -> None:
    """Refuse what is not `root:relative/path`.

    Raises:
        InvalidCall: with the field's name.
    """
    call.require_text(field_name, limit=PATH_LIMIT)
    root, colon, rest = getattr(call, field_name).partition(":")
    call.require(field_name, "must be 'root:relative/path'", holds=bool(root and colon))
    call.require(field_name, "must be relative to its root", holds=not rest.startswith("/"))


@contract
class Written(Result):
    """A file as it stands after a write. `etag` changes whenever the content does."""

    path: str
    size_bytes: int
    etag: str


@contract
class Write(Call[Written], operation="files.write"):
    """Put `body` at `path`, whole or not at all: a reader sees the old content or the new one, never a part.

    Missing directories are made. With `durable` the answer comes after the content and the directory entry are on the
    disk (fsync); without, a power cut may undo it.
    """

    path: str
    body: Body = secret("body")
    durable: bool = True

    def check(self) -> None:
        """Check the path."""
        check_path(self)


@contract
class Content(Result):
    """A file's content."""

    path: str
    body: bytes = secret("body")
    size_bytes: int
    etag: str


@contract
class Read(Call[Content], operation="files.read"):
    """Read a whole file, up to `max_bytes`; a larger one is `BodyTooLarge`."""

    path: str
    max_bytes: int = 8 * 1024 * 1024

    def check(self) -> None:
        """Check the path and the bound."""
        check_path(self)
        self.require_between("max_bytes", 0, 64 * 1024 * 1024)
