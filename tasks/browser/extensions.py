"""The directory of an extension out of an archive, laid down for Chromium to read."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath
from typing import Any, Final

from gaia.errors import InvalidExtension

MAX_FILES: Final = 5000
MAX_EXTENSIONS: Final = 32
"""Of one session."""
MAX_BYTES: Final = 64 * 1024 * 1024
MANIFEST: Final = "manifest.json"
NAME_CHARACTERS: Final = 200
MAX_HEADS_BYTES: Final = 2 * 1024 * 1024 + MAX_FILES * 1024
"""What a tar may hold beside the bytes of files."""
BARRED: Final = ("proxy", "privacy", "debugger", "nativeMessaging", "vpnProvider")
"""Permissions that lead past the proxy and its judge, or out of the browser."""
_UNREADABLE: Final = (
    *(zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, EOFError),
    *(OSError, RuntimeError, NotImplementedError, ValueError),
)
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_OPENERS: Final[dict[bytes, Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7zXZ": lzma.open}


def prepare(home: Path, owner: tuple[int, int] | None) -> None:
    """Tell a Chromium that is yet to start that the extensions of it may not read files, as unpacked ones else may.

    It takes the identity of an unpacked extension from its path, so the paths are settled now.
    """
    denied = {identity(home / _folder(number)): {"newAllowFileAccess": False} for number in range(MAX_EXTENSIONS)}
    settings = json.dumps({"extensions": {"settings": denied}}).encode()
    with ExitStack() as held:
        beneath = os.open(home, _DIRECTORY)
        held.callback(os.close, beneath)
        _write(beneath, PurePosixPath("Default/Preferences"), settings, owner)


def _folder(number: int) -> str:
    return f"extension-{number}"


def identity(path: Path) -> str:
    """Give Chromium's id of an unpacked extension without a key: the SHA-256 of its path, in letters from a to p."""
    digest = hashlib.sha256(os.fsencode(path.parent.resolve() / path.name)).hexdigest()[:32]
    return digest.translate(str.maketrans("0123456789abcdef", "abcdefghijklmnop"))


def laid_down(archive: bytes, home: Path, owner: tuple[int, int] | None, number: int) -> tuple[Path, str]:
    """Unpack into a directory beneath `home`, which belongs to `owner`; give it, and the extension's name.

    Raises:
        InvalidExtension: if the archive is none, leaves its directory, is too large, has no manifest, or asks for what
            would lead past the egress judge.
    """
    files = dict(_entries(archive))
    manifests = [path for path in files if path.name == MANIFEST and len(path.parts) <= 2]  # noqa: PLR2004
    if not manifests:
        raise InvalidExtension(f"there is no {MANIFEST} at its top or in its only folder")
    top = min(manifests, key=lambda each: len(each.parts)).parent
    manifest = _checked_manifest(files[top / MANIFEST])
    files = {path.relative_to(top): body for path, body in files.items() if path.is_relative_to(top)}
    files[PurePosixPath(MANIFEST)] = json.dumps(manifest).encode()
    folder = _folder(number)
    try:
        with ExitStack() as held:
            beneath = os.open(home, _DIRECTORY)
            held.callback(os.close, beneath)
            at = _entered(held, beneath, folder, owner)
            for path, body in files.items():
                _write(at, path, body, owner)
    except OSError as failure:
        raise InvalidExtension(f"it cannot be written: {failure.strerror}") from None
    return home / folder, str(manifest.get("name", ""))[:NAME_CHARACTERS]


def _write(top: int, path: PurePosixPath, body: bytes, owner: tuple[int, int] | None) -> None:
    """Write a file by descriptors: the directory is Chromium's, which could put links in our way."""
    with ExitStack() as held:
        at = top
        for part in path.parent.parts:
            at = _entered(held, at, part, owner)
        number = os.open(path.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=at)
        with os.fdopen(number, "wb") as file:
            file.write(body)
            if owner is not None:
                os.fchown(number, *owner)


def _entered(held: ExitStack, at: int, name: str, owner: tuple[int, int] | None) -> int:
    """Make a directory if there is none, and open it until `held` ends."""
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=at)
    found = os.open(name, _DIRECTORY, dir_fd=at)
    held.callback(os.close, found)
    if owner is not None:
        os.fchown(found, *owner)
    return found


def _checked_manifest(body: bytes) -> dict[str, Any]:
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidExtension(f"its {MANIFEST} is no JSON") from None
    if not isinstance(found, dict) or "manifest_version" not in found:
        raise InvalidExtension(f"its {MANIFEST} names no manifest_version")
    for field in ("permissions", "optional_permissions"):
        asked = found.get(field)
        barred = [each for each in asked if each in BARRED] if isinstance(asked, list) else []
        if barred:
            raise InvalidExtension(f"it asks for the permission {barred[0]!r}, which no extension has here")
    # With a key of its own it would have another identity than the one that may read no files.
    return {name: value for name, value in found.items() if name != "key"}


def _entries(archive: bytes) -> Iterator[tuple[PurePosixPath, bytes]]:
    total = 0
    try:
        for number, (name, size_bytes, read) in enumerate(_members(archive)):
            path = PurePosixPath(name)
            total += size_bytes
            if number >= MAX_FILES or total > MAX_BYTES:
                raise InvalidExtension(f"it is over {MAX_FILES} files or {MAX_BYTES} bytes")
            if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
                raise InvalidExtension("an entry of it lies outside of its directory")
            yield path, read()
    except _UNREADABLE:
        raise InvalidExtension("it is no zip or tar that can be read") from None


def _expanded(archive: bytes) -> bytes:
    """Decompress a tar within its bound: what it says of its sizes is nothing to rely on."""
    for start, opened in _OPENERS.items():
        if archive.startswith(start):
            with opened(io.BytesIO(archive)) as stream:
                archive = stream.read(MAX_BYTES + MAX_HEADS_BYTES + 1)
    if len(archive) > MAX_BYTES + MAX_HEADS_BYTES:
        raise InvalidExtension(f"it is over {MAX_BYTES} bytes")
    return archive


def _members(archive: bytes) -> Iterator[tuple[str, int, Any]]:
    """Give name, size and a reader of each plain file; the size is what the reader will give at most."""
    stream = io.BytesIO(archive)
    if zipfile.is_zipfile(stream):
        with zipfile.ZipFile(stream) as pack:
            for each in pack.infolist():
                if not each.is_dir():
                    yield each.filename, each.file_size, lambda each=each: pack.read(each)
        return
    with tarfile.open(fileobj=io.BytesIO(_expanded(archive)), mode="r:") as tar:
        for entry in tar:
            if entry.isfile():
                file = tar.extractfile(entry)
                yield entry.name, entry.size, file.read if file else bytes
