"""The only way out: resolve once, judge every address, dial exactly a judged one."""

import errno
import os
import select
import socket
import threading
import time
from contextlib import suppress
from functools import partial

from config.settings import Settings
from gaia.errors import ConnectFailed, EgressDenied, NameNotFound, ResolverFailed, TimedOut
from tasks.egress import forbidden
from tasks.egress.judge import Judge
from tasks.egress.resolver import TYPES, Answer, Resolver
from tasks.scope import CancelToken

_shared_lock = threading.Lock()
_shared: list[tuple[Settings, "Gateway"]] = []


class Gateway:
    """Dials for every subsystem. Thread-safe; holds nothing but the resolver's cache."""

    def __init__(self, judge: Judge, resolver: Resolver, connect_timeout_s: float = 5.0) -> None:
        """Share the resolver with whoever looks names up, so that there is one cache."""
        self.judge = judge
        self.resolver = resolver
        self._connect_timeout_s = connect_timeout_s

    @classmethod
    def from_settings(cls, settings: Settings) -> "Gateway":
        """Make the gateway of a worker.

        Raises:
            ResolverFailed: if the address of the cluster's own Redis cannot be found out: then it could not be guarded.
            SettingsError: if a name server is no address.
        """
        egress = settings.egress
        judge = Judge(egress.allow_cidrs, egress.allow_hosts, forbidden.endpoints(settings))
        return cls(judge, Resolver.from_settings(settings.network, settings.redis_url), settings.api.connect_timeout_s)

    @classmethod
    def shared(cls, settings: Settings) -> "Gateway":
        """Give the one gateway of this process, so that its subsystems share one cache of names."""
        with _shared_lock:
            known = next((gateway for made_for, gateway in _shared if made_for == settings), None)
            if known is None:
                known = cls.from_settings(settings)
                _shared.append((settings, known))
            return known

    def addresses(self, host: str, port: int, *, timeout_s: float) -> list[str]:
        """Resolve a host and give its judged addresses, IPv4 first.

        One denied address refuses the whole host: a public and an inner address under one name is how DNS rebinding
        begins. Only the machine's own hosts file may mix them; there the denied ones are left out.

        Raises:
            EgressDenied, NameNotFound, ResolverFailed: as the names say.
        """
        passed: list[str] = []
        denied: EgressDenied | None = None
        for answer in self._answers(host, timeout_s):
            for address in answer.addresses:
                try:
                    self.judge.judge(host, address, port)
                except EgressDenied as refusal:
                    if not answer.local:
                        raise
                    denied = denied or refusal
                else:
                    passed.append(address)
        if denied is not None and not passed:
            raise denied
        return passed

    def dial(self, host: str, port: int, *, timeout_s: float, cancelled: CancelToken | None = None) -> socket.socket:
        """Connect to a host; takes at most `timeout_s` and never more than the setting's bound for a dial.

        Raises:
            EgressDenied, NameNotFound, ResolverFailed: from `addresses`.
            ConnectFailed: if no address took the connection, or the call was cancelled meanwhile.
            TimedOut: if `timeout_s` passed.
        """
        token = cancelled or CancelToken()
        bound_s = min(timeout_s, self._connect_timeout_s)
        ends_at = time.monotonic() + bound_s
        addresses = self.addresses(host, port, timeout_s=bound_s)
        reason = f"no connection within {bound_s:.3f} s"
        for index, address in enumerate(addresses):
            left_s = ends_at - time.monotonic()
            if left_s <= 0 or token.is_set():
                break
            try:
                return _connect(address, port, left_s / (len(addresses) - index), token)
            except OSError as failure:
                reason = (failure.strerror or type(failure).__name__).lower()
        if time.monotonic() >= ends_at and timeout_s <= self._connect_timeout_s:
            raise TimedOut("dial", timeout_s)
        raise ConnectFailed(host, reason)

    def _answers(self, host: str, timeout_s: float) -> list[Answer]:
        ends_at = time.monotonic() + timeout_s
        found: list[Answer] = []
        failure: ResolverFailed | None = None
        for kind in TYPES:
            # Servers that drop questions for AAAA must not eat up the time to connect to what is known.
            left_s = max(0.001, ends_at - time.monotonic()) / (2 if found else 1)
            try:
                found.append(self.resolver.resolve(host, kind, timeout_s=left_s))
            except NameNotFound:
                continue
            except ResolverFailed as caught:
                failure = failure or caught
        if not found:
            raise failure or NameNotFound(host, "A or AAAA")
        return found


def _connect(address: str, port: int, timeout_s: float, cancelled: CancelToken) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.settimeout(0.0)
        failed = sock.connect_ex((address, port))
        if failed == errno.EINPROGRESS:
            # Only now, since a socket that does not connect yet cannot be woken.
            with cancelled.calling(partial(wake, sock)):
                failed = _outcome(sock, timeout_s)
        if failed:
            raise OSError(failed, os.strerror(failed))  # noqa: TRY301 - the clause below closes the socket
        sock.settimeout(timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _outcome(sock: socket.socket, timeout_s: float) -> int:
    """Wait for a connect to end and give its error number, 0 for none."""
    waiting = select.poll()
    waiting.register(sock, select.POLLOUT)
    ended = waiting.poll(timeout_s * 1000)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if ended else errno.ETIMEDOUT


def wake(sock: socket.socket) -> None:
    """End a connection under the thread that waits on it; on Linux this ends a connect under way, too (tcp(7))."""
    with suppress(OSError):
        # Not ssl's own shutdown: it drops the TLS layer under a thread that reads.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
