"""One running Chromium: its process group, its profile, its DevTools.

An `Instance` owns all three. Chromium ends by itself when the worker dies, because its pipe closes.
"""

import os
import pwd
import shutil
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from config.settings import Browser
from gaia.errors import BrowserUnavailable, GaiaError, NotConfigured
from tasks.browser.devtools import DevTools, NoReply, ProtocolError, Reply
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
    "--disable-extensions",
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
_KEPT_VARIABLES: Final = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "FONTCONFIG_FILE", "FONTCONFIG_PATH")


class Instance:
    """A Chromium with pipes instead of a debugging port, in a session of its own."""

    def __init__(self, binary: Path, settings: Browser) -> None:
        """Start it and wait until it answers.

        Raises:
            BrowserUnavailable: if it does not start.
            NotConfigured: if the user of the settings does not exist.
        """
        owner = _unprivileged(settings.user) if os.geteuid() == 0 else None
        self._closing = threading.Lock()
        self._closed = False
        self._last_words = b""
        self._profile = Profile(owner)
        try:
            self.pid, pipe = self._spawn(_command(binary, settings, owner, self._profile.path))
        except OSError as failure:
            self._profile.remove()
            raise BrowserUnavailable(f"{binary}: {failure.strerror}") from None
        except BaseException:
            self._profile.remove()
            raise
        self._sessions: dict[str, str] = {}
        self.devtools = DevTools(pipe, self._on_event)
        self._greet()

    @property
    def dead(self) -> bool:
        """Say whether it is of no more use."""
        return self._closed or self.devtools.dead

    def close(self) -> None:
        """Kill the whole process group, reap it, and remove the profile."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.devtools.close()
            _reap(self.pid)
            self._stderr.join(KILL_S)
            self._profile.remove()

    def watch(self, target: str, session: str) -> None:
        """Release the session when its page is gone."""
        self._sessions[target] = session

    def forget(self, target: str) -> None:
        """Undo `watch`."""
        self._sessions.pop(target, None)

    # --- starting

    def _spawn(self, argv: list[str]) -> tuple[int, socket.socket]:
        ours, theirs = socket.socketpair()
        words, stderr = os.pipe()
        try:
            # Their end stays blocking: a Chromium that sees EAGAIN on its pipe exits.
            number = theirs.fileno()
            pid = os.posix_spawn(
                argv[0],
                argv,
                _environment(self._profile.path),
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
        self._stderr = threading.Thread(target=self._drain, args=(words,), name="gaia-browser-stderr", daemon=True)
        self._stderr.start()
        return pid, ours

    def _drain(self, words: int) -> None:
        with open(words, "rb", buffering=0) as stream:
            while chunk := stream.read(LAST_WORDS_BYTES):
                self._last_words = (self._last_words + chunk)[-LAST_WORDS_BYTES:]

    def _greet(self) -> None:
        pages = {"discover": True, "filter": [{"type": "page", "exclude": False}]}
        try:
            self.devtools.call("Target.setDiscoverTargets", pages, timeout_s=LAUNCH_S)
        except (GaiaError, NoReply, ProtocolError) as failure:
            self.close()
            raise BrowserUnavailable(self._why(failure)) from None

    def _why(self, failure: Exception) -> str:
        if isinstance(failure, NoReply):
            return f"Chromium did not answer within {LAUNCH_S:g} s"
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
            case "Target.targetCreated" if parameters["targetInfo"].get("openerId"):
                # A pop-up, of a Chromium that does not know the flag against them.
                self.devtools.tell("Target.closeTarget", {"targetId": parameters["targetInfo"]["targetId"]})
            case "Target.targetCrashed" | "Target.targetDestroyed":
                session = self._sessions.get(parameters["targetId"])
                if session is not None:
                    self.devtools.release(session)


def _command(binary: Path, settings: Browser, owner: tuple[int, int] | None, profile: Path) -> list[str]:
    argv = [str(binary), *FLAGS, f"--user-data-dir={profile}"]
    if settings.no_sandbox:
        argv.append("--no-sandbox")
    if _shm_bytes() < SMALL_SHM_BYTES:
        argv.append("--disable-dev-shm-usage")
    if owner is None:
        return argv
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise BrowserUnavailable("a worker that runs as root needs the program setpriv (util-linux) to start Chromium")
    user, group = map(str, owner)
    return [setpriv, "--reuid", user, "--regid", group, "--clear-groups", "--no-new-privs", "--", *argv]


def _unprivileged(user: str) -> tuple[int, int]:
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise NotConfigured("GAIA_BROWSER__USER", f"this machine has no user {user!r}") from None
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
