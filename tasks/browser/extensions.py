"""The directory of an extension out of an archive, laid down for Chromium to read."""

import io
import json
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

from gaia.errors import InvalidExtension

MAX_FILES: Final = 5000
MAX_BYTES: Final = 64 * 1024 * 1024
MANIFEST: Final = "manifest.json"


def laid_down(archive: bytes, home: Path, owner: tuple[int, int] | None) -> Path:
    """Unpack into a new directory beneath `home`, which belongs to `owner`; give where the manifest lies.

    Raises:
        InvalidExtension: if the archive is none, leaves its directory, is too large, or has no manifest.
    """
    files = dict(_entries(archive))
    manifests = [path for path in files if path.name == MANIFEST and len(path.parts) <= 2]  # noqa: PLR2004
    if not manifests:
        raise InvalidExtension(f"there is no {MANIFEST} at its top or in its only folder")
    top = min(manifests, key=lambda each: len(each.parts)).parent
    _check_manifest(files[top / MANIFEST])
    folder = Path(tempfile.mkdtemp(prefix="extension-", dir=home))
    for path, body in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(body)
    if owner is not None:
        for root, folders, names in os.walk(folder):
            for each in (root, *(os.path.join(root, name) for name in (*folders, *names))):  # noqa: PTH118
                os.chown(each, *owner, follow_symlinks=False)
    return folder / top


def _check_manifest(body: bytes) -> None:
    try:
        found: Any = json.loads(body)
    except ValueError:
        raise InvalidExtension(f"its {MANIFEST} is no JSON") from None
    if not isinstance(found, dict) or "manifest_version" not in found:
        raise InvalidExtension(f"its {MANIFEST} names no manifest_version")


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
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, RuntimeError, NotImplementedError, ValueError):
        raise InvalidExtension("it is no zip or tar that can be read") from None


def _members(archive: bytes) -> Iterator[tuple[str, int, Any]]:
    """Give name, size and a reader of each plain file; the size is what the reader will give at most."""
    stream = io.BytesIO(archive)
    if zipfile.is_zipfile(stream):
        with zipfile.ZipFile(stream) as pack:
            for each in pack.infolist():
                if not each.is_dir():
                    yield each.filename, each.file_size, lambda each=each: pack.read(each)
        return
    stream.seek(0)
    with tarfile.open(fileobj=stream) as tar:
        for entry in tar:
            if entry.isfile():
                file = tar.extractfile(entry)
                yield entry.name, entry.size, file.read if file else bytes
