"""One running Chromium: its process group, its profile, its DevTools.

An `Instance` owns all three. Chromium ends by itself when the worker dies, because its pipe closes; a shell around it
then removes the profile.
"""

import asyncio
import logging
import os
import pwd
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from config.settings import Browser
from gaia.errors import BrowserUnavailable, InvalidSetting
from tasks.browser import extensions
from tasks.browser.devtools import DevTools, ProtocolError, Reply
from tasks.browser.profile import Profile

LAUNCH_S: Final = 20.0
KILL_S: Final = 5.0
LAST_WORDS_BYTES: Final = 8192
SMALL_SHM_BYTES: Final = 512 * 1024 * 1024

FLAGS: Final = (
    "--headless",
    "--remote-debugging-pipe",
    "--disable-gpu",
    # Nothing that no page asked for: no first run, updates, sync, metrics, crash reports, pings.
    "--no-first-run",
    "--no-default-browser-check",
    "--no-startup-window",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-client-side-phishing-detection",
    "--disable-component-update",
    "--disable-crash-reporter",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-pings",
    # No way past the proxy: no QUIC, no UDP of WebRTC, no name resolved here.
    "--disable-quic",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",  # its name in the full Chromium
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    # A page opens no other: nobody would look at it, and it could open any number.
    "--block-new-web-contents",
    # The same picture everywhere.
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--mute-audio",
)
# What runs around Chromium: it lets go of the pipe, and outlives Chromium by as long as it takes to remove the profile,
# whoever of worker and Chromium was killed. Renderers may write for a moment longer.
WRAPPER: Final = (
    'home=$1; shift; "$@" & exec 3>&- 4>&-; wait $!; cd /; '
    'for i in 1 2 3 4 5; do rm -rf -- "$home" 2>/dev/null && break; sleep 0.2; done'
)
_KEPT_VARIABLES: Final = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "FONTCONFIG_FILE", "FONTCONFIG_PATH")


log = logging.getLogger(__name__)


class Instance:
    """A Chromium with pipes instead of a debugging port, in a session of its own. To be used in its loop alone."""

    def __init__(self, binary: Path, settings: Browser, *, extensions_proxy: int | None = None) -> None:
        """Make its profile; `start` starts it."""
        self._binary = binary
        self._settings = settings
        self._extensions_proxy = extensions_proxy
        self._owner = unprivileged(settings.user) if os.geteuid() == 0 else None
        self._closed = False
        self._last_words = b""
        self._stderr: asyncio.ReadTransport | None = None
        self._sessions: dict[str, str] = {}
        self._profile = Profile(self._owner)
        self.home = self._profile.path
        if extensions_proxy is not None:
            extensions.prepare(self.home, self._owner)
        self.owner = self._owner
        self.pid = 0
        self.version = ""
        self.user_agent = ""
        self.devtools = DevTools(self._on_event)
        self.on_crash: Callable[[str], None] = lambda _: None
        self.on_end: Callable[[], None] = lambda: None
        self._expected = 0
        self.tabs = 0
        self.served = 0
        self.memory_bytes = 0
        self.retiring = False
        self.owned = False
        self.born_at = time.monotonic()
        self.idle_since = self.born_at

    @classmethod
    async def start(cls, binary: Path, settings: Browser, *, extensions_proxy: int | None = None) -> Self:
        """Start one and wait until it answers; with the port of a proxy it can load extensions.

        Raises:
            BrowserUnavailable: if it does not start.
            InvalidSetting: if the user of the settings does not exist.
        """
        making = asyncio.create_task(asyncio.to_thread(cls, binary, settings, extensions_proxy=extensions_proxy))
        try:
            made = await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(_unmade)
            raise
        try:
            await made._begin()  # noqa: SLF001 - its own
        except BaseException:
            await asyncio.shield(made.close())
            raise
        return made

    @property
    def dead(self) -> bool:
        """Say whether it is of no more use."""
        return self._closed or self.devtools.dead

    async def close(self) -> None:
        """Kill the whole process group, reap it, and remove the profile."""
        if self._closed:
            return
        self._closed = True
        self.devtools.hang_up()
        try:
            # At the end of the worker this is cancelled, too, and so would be a thread that has not begun.
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._end))
        finally:
            if self._stderr is not None:
                self._stderr.close()

    def _end(self) -> None:
        if self.pid:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            _reap(self.pid)
        self._profile.remove()

    def watch(self, target: str, session: str) -> None:
        """Release the session when its page is gone."""
        self._sessions[target] = session

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Let a page be created inside the block; another is closed where extensions could open any number."""
        self._expected += 1
        try:
            yield
        finally:
            self._expected -= 1

    def _unasked(self, target: Reply) -> bool:
        return bool(target.get("openerId")) or (self.owned and not self._expected)

    def forget(self, target: str) -> None:
        """Undo `watch`."""
        self._sessions.pop(target, None)

    # --- starting

    async def _begin(self) -> None:
        if self._settings.no_sandbox:
            log.warning("GAIA_BROWSER__NO_SANDBOX is on: Chromium runs without its sandbox")
        argv = _command(self._binary, self._settings, self._owner, self._profile.path, self._extensions_proxy)
        try:
            self.pid, pipe, words = _spawn(argv, self._profile.path)
        except OSError as failure:
            raise BrowserUnavailable(f"{self._binary}: {failure.strerror}") from None
        loop = asyncio.get_running_loop()
        self._stderr, _ = await loop.connect_read_pipe(lambda: _Words(self._hear), _stream(words))
        pipe.settimeout(0.0)
        await loop.create_connection(lambda: self.devtools, sock=pipe)
        await self._greet()

    def _hear(self, chunk: bytes) -> None:
        self._last_words = (self._last_words + chunk)[-LAST_WORDS_BYTES:]

    async def _greet(self) -> None:
        pages = {"discover": True, "filter": [{"type": "page", "exclude": False}]}
        try:
            async with asyncio.timeout(LAUNCH_S):
                await self.devtools.call("Target.setDiscoverTargets", pages)
                told = await self.devtools.call("Browser.getVersion")
                self.version, self.user_agent = told["product"], told["userAgent"]
        except TimeoutError:
            raise BrowserUnavailable(f"Chromium did not answer within {LAUNCH_S:g} s") from None
        except (BrowserUnavailable, ProtocolError):
            await asyncio.sleep(0.05)  # its last words come over another pipe
            raise BrowserUnavailable(self._why()) from None

    def _why(self) -> str:
        text = self._last_words.decode(errors="replace").strip()
        if "No usable sandbox" in text:
            return (
                "the kernel refuses Chromium's sandbox: allow user namespaces, or set GAIA_BROWSER__NO_SANDBOX=true "
                "where every page is trusted"
            )
        return "Chromium ended at once: " + (text.splitlines()[-1] if text else "it said nothing")

    # --- events

    def _on_event(self, method: str, parameters: Reply) -> None:
        match method:
            case "Target.targetCreated" if self._unasked(parameters["targetInfo"]):
                # A pop-up, of a Chromium that does not know the flag against them, or the tab of an extension.
                self.devtools.tell("Target.closeTarget", {"targetId": parameters["targetInfo"]["targetId"]})
            case "Target.targetCrashed" | "Target.targetDestroyed":
                session = self._sessions.pop(parameters["targetId"], None)
                if session is not None:
                    self.devtools.release(session)
                    self.on_crash(parameters["targetId"])
            case "disconnected":
                self.on_end()


def _unmade(making: "asyncio.Task[Any]") -> None:
    """Remove the profile of one that nobody waited for; nothing has been written to it."""
    if not making.cancelled() and making.exception() is None:
        making.result()._profile.remove()  # noqa: SLF001 - its own


class _Words(asyncio.Protocol):
    """Chromium's stderr."""

    def __init__(self, hear: Callable[[bytes], None]) -> None:
        self._hear = hear

    def data_received(self, data: bytes) -> None:
        self._hear(data)


def _stream(number: int) -> BinaryIO:
    return open(number, "rb", buffering=0)


def _spawn(argv: list[str], home: Path) -> tuple[int, socket.socket, int]:
    """Start it in a session of its own; give its process id, our end of the pipe, and its stderr."""
    ours, theirs = socket.socketpair()
    words, stderr = os.pipe()
    try:
        # Their end stays blocking: a Chromium that sees EAGAIN on its pipe exits.
        number = theirs.fileno()
        pid = os.posix_spawn(
            argv[0],
            argv,
            _environment(home),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, stderr, 2),
                (os.POSIX_SPAWN_DUP2, number, 3),
                (os.POSIX_SPAWN_DUP2, number, 4),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE,),
        )
    except OSError:
        ours.close()
        os.close(words)
        raise
    finally:
        theirs.close()
        os.close(stderr)
    return pid, ours, words


def _command(
    binary: Path, settings: Browser, owner: tuple[int, int] | None, profile: Path, proxy_port: int | None
) -> list[str]:
    argv = [str(binary), *FLAGS, f"--user-data-dir={profile}"]
    argv.append("--disable-extensions" if proxy_port is None else "--enable-unsafe-extension-debugging")
    if proxy_port is not None:
        # Its own context cannot be given a proxy later, and extensions run in no other.
        argv += [f"--proxy-server=http://127.0.0.1:{proxy_port}", "--proxy-bypass-list=<-loopback>"]
    if settings.no_sandbox:
        argv.append("--no-sandbox")
    if _shm_bytes() < SMALL_SHM_BYTES:
        argv.append("--disable-dev-shm-usage")
    shell = ["/bin/sh", "-c", WRAPPER, "gaia-browser", str(profile)]
    if owner is None:
        return [*shell, *argv]
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise BrowserUnavailable("a worker that runs as root needs the program setpriv (util-linux) to start Chromium")
    user, group = map(str, owner)
    privileges = ["--reuid", user, "--regid", group, "--clear-groups", "--no-new-privs"]
    # The shell keeps its user, who may remove the profile from whatever directory it lies in.
    return [*shell, setpriv, *privileges, "--", *argv]


def unprivileged(user: str) -> tuple[int, int]:
    """Give the ids of the user and its group.

    Raises:
        InvalidSetting: this machine does not know the user.
    """
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise InvalidSetting("GAIA_BROWSER__USER", f"names {user!r}, a user that this machine does not have") from None
    return entry.pw_uid, entry.pw_gid


def _environment(home: Path) -> dict[str, str]:
    """Give what Chromium needs to know; the worker's own variables hold passwords."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {**kept, "HOME": str(home), "TMPDIR": str(home)}


def _shm_bytes() -> int:
    """Give the size of /dev/shm; containers have 64 MiB, in which Chromium crashes."""
    try:
        found = os.statvfs("/dev/shm")  # noqa: S108 - asked for its size, not written to
    except OSError:
        return 0
    return found.f_blocks * found.f_frsize


def _reap(group: int) -> None:
    """Collect the children of a killed group; those that lost their parent are ours when we run as process 1."""
    ends_at = time.monotonic() + KILL_S
    while time.monotonic() < ends_at:
        try:
            pid, _ = os.waitpid(-group, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(0.005)
