"""The directory in which a cluster of one machine keeps what outlives a command.

`gaia up` alone writes it, while it holds `lock`; other commands read. What a killed `gaia up` leaves is sound: the lock
goes with its process, `env` counts only while the lock is held, and password, port and data serve the next start.

    lock             held by the running `gaia up`
    env              the variables that lead to the running cluster: to its Redis, results, large bodies and monitor
    redis-password   of the embedded server, as long as its data
    redis-port       the one it had last
    redis.conf  redis.log  redis/
    files/           the root `data`, unless settings name others
    artifacts/       bodies over 8 MiB, unless settings name another directory
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

DEFAULT: Final = Path(".gaia")

PASSWORD_BYTES: Final = 32

MONITOR_HOST: Final = "GAIA_MONITOR__HOST"
MONITOR_PORT: Final = "GAIA_MONITOR__PORT"
ANNOUNCED: Final = ("GAIA_REDIS_URL", "GAIA_RESULT_URL", "GAIA_ARTIFACTS__URL", MONITOR_HOST, MONITOR_PORT)
"""What a running cluster may tell other commands."""


class StateDir:
    """Private files beneath one directory of this user."""

    def __init__(self, path: Path) -> None:
        """Name the directory; nothing is touched yet."""
        self.path = path.absolute()

    def create(self) -> Path | None:
        """Make the directory, or take an existing one of this user, for this user alone.

        Give the topmost directory that was made, None if all were there.

        Raises:
            click.ClickException: if it cannot be made or belongs to somebody else.
        """
        missing = [each for each in (self.path, *self.path.parents) if not each.exists()]
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = self.path.stat().st_uid
            if owner == os.geteuid():
                self.path.chmod(0o700)
        except OSError as failure:
            raise click.ClickException(f"{self.path}: {failure.strerror}: choose another --state-dir") from None
        if owner != os.geteuid():
            raise click.ClickException(f"{self.path} belongs to user {owner}: choose another --state-dir")
        return missing[-1] if missing else None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for one cluster; the kernel lets go when the process ends, however it ends.

        Raises:
            click.ClickException: if another process holds it.
        """
        with os.fdopen(_private(self.path / "lock", os.O_RDWR | os.O_CREAT), "r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise click.ClickException(
                    f"a cluster runs in {self.path} already (process {file.read(20).strip() or 'unknown'}): "
                    "stop it, or choose another --state-dir"
                ) from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            self.forget("env")
            try:
                yield
            finally:
                self.forget("env")

    def held(self) -> bool:
        """Say whether a running process holds the lock."""
        try:
            with (self.path / "lock").open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def write(self, name: str, text: str) -> Path:
        """Put a file there, whole or not at all, for this user alone."""
        path, part = self.path / name, self.path / f"{name}.part"
        part.unlink(missing_ok=True)
        with os.fdopen(_private(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w") as file:
            file.write(text)
        return part.replace(path)

    def read(self, name: str) -> str | None:
        """Give the text of a file, None if there is none."""
        try:
            return (self.path / name).read_text()
        except FileNotFoundError:
            return None

    def forget(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self.path / name).unlink(missing_ok=True)

    def directory(self, name: str) -> Path:
        """Make a directory there."""
        path = self.path / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def password(self) -> str:
        """Give the password of the embedded server, made at the first call.

        Raises:
            click.ClickException: if the file holds something else.
        """
        path = self.path / "redis-password"
        kept = self.read(path.name)
        if kept is None:
            kept = secrets.token_hex(PASSWORD_BYTES)
            self.write(path.name, kept)
        kept = kept.strip()
        if len(kept) != 2 * PASSWORD_BYTES or not set(kept) <= set("0123456789abcdef"):
            raise click.ClickException(
                f"{path} holds no password of {2 * PASSWORD_BYTES} hex digits: remove it, and a new one is made"
            )
        path.chmod(0o600)
        return kept

    def announce(self, variables: Mapping[str, str]) -> None:
        """Let other commands find the running cluster, by the variables that lead to it."""
        self.write("env", json.dumps(variables))

    def announced(self) -> dict[str, str]:
        """Give the variables that lead to the running cluster, password included; none if no cluster is ready.

        Raises:
            click.ClickException: if it is somebody else's, who would have our calls led, and our token sent, to them.
        """
        text = self.read("env") if self.held() else None
        if text is None:
            return {}
        for place in (self.path, self.path / "env"):
            if (owner := place.stat().st_uid) != os.geteuid():
                raise click.ClickException(f"{place} belongs to user {owner}: name a --state-dir of your own")
        found = json.loads(text)
        return {name: str(found[name]) for name in ANNOUNCED if name in found}


def _private(path: Path, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
