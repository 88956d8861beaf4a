"""Large bodies, kept for a while: the claim check of messages and results.

A reference holds 128 random bits, the size and the SHA-256. Bodies up to 8 MiB lie in Redis, larger ones in a
directory that all machines share. The size alone says which; no path and no URL is ever taken from a message.
"""

import io
import math
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final, Self

import redis
from redis.client import Pipeline
from redis.exceptions import RedisError, WatchError

from gaia.codec import Artifact
from gaia.errors import (
    ArtifactMissing,
    ArtifactTooLarge,
    BodyOverMemory,
    GaiaError,
    InvalidCall,
    InvalidSetting,
    NotConfigured,
)
from gaia.store import bodies, keys
from gaia.store.bodies import DEFAULT_TTL_S, Source, Store, Tally
from gaia.store.directory import QUOTA_BYTES, DirectoryArtifacts, directory_of

VARIABLES: Final = "GAIA_ARTIFACTS__"
URL_VARIABLE: Final = VARIABLES + "URL"

LIMIT_BYTES: Final = 8 * 1024 * 1024
"""Redis holds bodies in memory, and a reply this long already blocks it for milliseconds."""

MEMORY_BYTES: Final = 128 * 1024 * 1024
"""A larger body is not taken into memory as a whole, unless settings say so."""

GONE: Final = -2
"""What Redis says of the time that is left to a key that is not there."""

REFER_ATTEMPTS: Final = 100
"""One fails only if another prolonged the same body at that moment."""

MEDIA_TYPE_CHARACTERS: Final = 255

TTL_LEAST_S: Final = 60
TTL_MOST_S: Final = 30 * 86_400

DIGITS: Final = 18
"""Of a number in a setting, so that it fits 64 bits."""


@dataclass(frozen=True)
class Keeping:
    """How large bodies are kept. Producers and workers of a cluster agree on the directory and its quota."""

    directory: Path | None = None
    ttl_s: float = DEFAULT_TTL_S
    quota_bytes: int = QUOTA_BYTES
    memory_bytes: int = MEMORY_BYTES

    @classmethod
    def read(cls, url: str | None, environ: Mapping[str, str]) -> Self:
        """Read a producer's environment; a URL that is given goes before the variable.

        Raises:
            InvalidSetting: naming the variable.
        """
        url = url or environ.get(URL_VARIABLE)
        try:
            directory = directory_of(url) if url else None
        except ValueError as failure:
            raise InvalidSetting(URL_VARIABLE, str(failure)) from None
        numbers = {name: _number(environ, name) for name in ("ttl_s", "quota_bytes", "memory_bytes")}
        ttl_s = numbers["ttl_s"]
        if ttl_s is not None and not TTL_LEAST_S <= ttl_s <= TTL_MOST_S:
            raise InvalidSetting(VARIABLES + "TTL_S", f"must be from {TTL_LEAST_S} to {TTL_MOST_S} seconds")
        return cls(directory, **{name: number for name, number in numbers.items() if number is not None})

    def store(self, client: redis.Redis, *, keep_s: float = 0.0) -> "Artifacts":
        """Make the store, on the Redis of the results; what is stored through it is kept for at least `keep_s`."""
        ttl_s = max(self.ttl_s, keep_s)
        return Artifacts(RedisArtifacts(client, ttl_s=ttl_s), self.shared(ttl_s), memory_bytes=self.memory_bytes)

    def session(self, client: Callable[[], redis.Redis], *, keep_s: float) -> "Session":
        """Make a session of such a store; nothing of it is made for a message without large bodies."""
        return Session(lambda: self.store(client(), keep_s=keep_s), self.memory_bytes)

    def shared(self, ttl_s: float = DEFAULT_TTL_S) -> DirectoryArtifacts | None:
        """Make the directory's store alone, None if none is named."""
        if self.directory is None:
            return None
        return DirectoryArtifacts(self.directory, ttl_s=ttl_s, quota_bytes=self.quota_bytes)


def _number(environ: Mapping[str, str], name: str) -> int | None:
    variable = VARIABLES + name.upper()
    text = environ.get(variable)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 0 < len(text.lstrip("0")) <= DIGITS):
        raise InvalidSetting(variable, "must be a positive integer")
    return int(text)


class Artifacts:
    """Every body that a call, a result or `Gaia.put` hands over, in Redis or in the directory by its size."""

    def __init__(
        self,
        small: Store,
        large: Store | None = None,
        *,
        limit_bytes: int = LIMIT_BYTES,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        """Keep bodies up to `limit_bytes` in the first store; producers and workers must agree on that.

        `memory_bytes` is the largest body that `get` takes into memory.
        """
        self._small = small
        self._large = large
        self._limit_bytes = limit_bytes
        self._memory_bytes = memory_bytes

    def put(self, source: Source, *, media_type: str = Artifact.media_type) -> Artifact:
        """Store a body; of a file what is left to read, a chunk at a time.

        Raises:
            ArtifactTooLarge: over 8 MiB without a directory.
            BodyTooLarge: over the whole quota.
            ArtifactsFull, ArtifactsUnavailable: of the directory.
            FileMissing, FileFailed: of the source.
            InvalidCall: if the source or the media type is none.
        """
        _require_media_type(media_type)
        with bodies.opened(source) as (file, size_bytes):
            head = bodies.read(file, self._limit_bytes + 1)
            fits = len(head) <= self._limit_bytes or self._large is None
            store = self._small if fits or self._large is None else self._large
            return store.write(chain((head,), bodies.chunks(file)), size_bytes=size_bytes, media_type=media_type)

    def open(self, artifact: Artifact) -> BinaryIO:
        """Open a body to be read once, from its start.

        Size and checksum are verified when the last bytes are read: whoever stops earlier has unverified ones.

        Raises:
            ArtifactMissing: if it is not there, or is not what the reference says; the latter also while it is read.
            NotConfigured: if it lies in a directory that is not known here.
            ArtifactsUnavailable: if the directory cannot be read.
        """
        bodies.require_id(artifact)
        return self._of(artifact).open(artifact)

    def get(self, artifact: Artifact) -> bytes:
        """Fetch a whole body.

        Raises:
            BodyOverMemory: if it is larger than may be taken into memory; `open` reads it.
            ArtifactMissing, NotConfigured, ArtifactsUnavailable: as `open`.
        """
        if artifact.size_bytes > self._memory_bytes:
            raise BodyOverMemory(f"artifact {bodies.require_id(artifact)}", self._memory_bytes)
        with self.open(artifact) as file:
            # One byte more, to come to the end, where an empty body is verified, too.
            return file.read(artifact.size_bytes + 1)

    def refer(self, artifact: Artifact) -> Artifact:
        """Give the reference that travels in a message, and keep the body as long as one stored now.

        Raises:
            ArtifactMissing, NotConfigured, ArtifactsUnavailable: as `open`, the content unread.
        """
        bodies.require_id(artifact)
        return self._of(artifact).refer(artifact)

    def remove(self, artifact: Artifact) -> None:
        """Remove a body; nothing is done if it has gone already.

        Raises:
            ArtifactMissing: if the id is none.
            NotConfigured, ArtifactsUnavailable: as `open`.
        """
        bodies.require_id(artifact)
        self._of(artifact).remove(artifact)

    def session(self) -> "Session":
        """Give the store for the bodies of one message."""
        return Session(lambda: self, self._memory_bytes)

    def _of(self, artifact: Artifact) -> Store:
        if artifact.size_bytes <= self._limit_bytes:
            return self._small
        if self._large is None:
            raise NotConfigured(URL_VARIABLE, f"artifact {artifact.id} lies in the directory that it names elsewhere")
        return self._large


class Session:
    """The bodies of one message. A body that it refers to several times is fetched once."""

    __slots__ = ("_fetched", "_left_bytes", "_made", "_make_store", "_memory_bytes", "_stored")

    def __init__(self, make_store: Callable[[], Artifacts], memory_bytes: int) -> None:
        """Take at most `memory_bytes` into memory, all bodies together. The store is made for the first body."""
        # Most messages have no large body, and each has a session: little is made ahead.
        self._make_store = make_store
        self._made: Artifacts | None = None
        self._memory_bytes = self._left_bytes = memory_bytes
        self._stored: tuple[Artifact, ...] = ()
        self._fetched: dict[Artifact, bytes] | None = None

    def session(self) -> "Session":
        """Give itself."""
        return self

    @property
    def _store(self) -> Artifacts:
        if self._made is None:
            self._made = self._make_store()
        return self._made

    def put(self, body: bytes) -> Artifact:
        """Store a body; raises what `Artifacts.put` does."""
        artifact = self._store.put(body)
        self._stored += (artifact,)
        return artifact

    def refer(self, artifact: Artifact) -> Artifact:
        """Keep a body that was stored before; raises what `Artifacts.refer` does."""
        return self._store.refer(artifact)

    def get(self, artifact: Artifact) -> bytes:
        """Fetch a whole body; raises what `Artifacts.get` does, `BodyOverMemory` for all bodies together, too."""
        fetched = self._fetched = self._fetched or {}
        if artifact not in fetched:
            if self._left_bytes < artifact.size_bytes <= self._memory_bytes:
                raise BodyOverMemory("the bodies of one message", self._memory_bytes)
            fetched[artifact] = body = self._store.get(artifact)
            self._left_bytes -= len(body)
        return fetched[artifact]

    def discard(self) -> None:
        """Remove the bodies that were stored through it, until one cannot be removed; the rest expires."""
        with suppress(GaiaError, RedisError):
            while self._stored:
                *rest, last = self._stored
                self._stored = tuple(rest)
                self._store.remove(last)


class RedisArtifacts:
    """Bodies as Redis strings with an expiry."""

    def __init__(self, client: redis.Redis, *, ttl_s: float = DEFAULT_TTL_S) -> None:
        """Use a client; `ttl_s` is how long a body is kept. What Redis refuses is raised as redis-py does."""
        self._client = client
        self._ttl_s = math.ceil(ttl_s)

    def write(self, chunks: Iterable[bytes], *, size_bytes: int | None, media_type: str) -> Artifact:
        """Store a body.

        Raises:
            ArtifactTooLarge: over 8 MiB.
        """
        _require_small(size_bytes or 0)
        tally, body = Tally(), io.BytesIO()
        for chunk in chunks:
            tally.add(chunk)
            _require_small(tally.size_bytes)
            body.write(chunk)
        found = tally.artifact(secrets.token_hex(16), media_type)
        self._client.set(keys.artifact(found.id), body.getbuffer(), ex=self._ttl_s)
        return found

    def open(self, artifact: Artifact) -> BinaryIO:
        """Fetch a body; it is verified as a whole before any of it is read.

        Raises:
            ArtifactMissing: if it is not there, or is not what the reference says.
        """
        body = self._client.get(keys.artifact(bodies.require_id(artifact)))
        if not isinstance(body, bytes):
            raise ArtifactMissing(artifact.id, bodies.NOT_STORED)
        tally = Tally()
        tally.add(body)
        tally.require(artifact)
        return io.BytesIO(body)

    def refer(self, artifact: Artifact) -> Artifact:
        """Keep a body as long as one stored now, or longer if it already is.

        Raises:
            ArtifactMissing: if it is not there.
        """
        key = keys.artifact(bodies.require_id(artifact))
        with self._client.pipeline() as pipe:
            for _ in range(REFER_ATTEMPTS):
                with suppress(WatchError):
                    if not self._prolong(pipe, key):
                        raise ArtifactMissing(artifact.id, bodies.NOT_STORED)
                    break
        return artifact

    def remove(self, artifact: Artifact) -> None:
        """Remove a body; nothing is done if it has gone already."""
        self._client.delete(keys.artifact(bodies.require_id(artifact)))

    def _prolong(self, pipe: Pipeline, key: str) -> bool:
        """Give a body its new life unless it has a longer one; False if it is gone. EXPIRE with GT needs Redis 7."""
        pipe.watch(key)  # type: ignore[no-untyped-call]  # redis-py
        left_s = int(pipe.ttl(key))
        if left_s == GONE or left_s >= self._ttl_s:
            return left_s != GONE
        pipe.multi()
        pipe.expire(key, self._ttl_s)
        return bool(pipe.execute()[0])


def _require_media_type(given: object) -> None:
    if not (isinstance(given, str) and 0 < len(given) <= MEDIA_TYPE_CHARACTERS and given.isprintable()):
        raise InvalidCall("put", "media_type", f"must have 1 to {MEDIA_TYPE_CHARACTERS} printable characters")


def _require_small(size_bytes: int) -> None:
    if size_bytes > LIMIT_BYTES:
        raise ArtifactTooLarge("a body", LIMIT_BYTES)
