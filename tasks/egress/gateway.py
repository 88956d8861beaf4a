"""The only way out: resolve once, judge every address, dial exactly a judged one."""

import errno
import os
import socket
import time
from contextlib import suppress
from functools import partial

from config.settings import Settings
from gaia.errors import ConnectFailed, EgressDenied, NameNotFound, ResolverFailed, TimedOut
from tasks.egress import forbidden
from tasks.egress.judge import Judge
from tasks.egress.resolver import Answer, Resolver
from tasks.scope import CancelToken


class Gateway:
    """Dials for every subsystem. Thread-safe; holds nothing but the resolver's cache."""

    def __init__(self, judge: Judge, resolver: Resolver, connect_timeout_s: float = 5.0) -> None:
        self.judge = judge
        self.resolver = resolver
        self._connect_timeout_s = connect_timeout_s

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
                reason = _reason(failure)
        if time.monotonic() >= ends_at and timeout_s <= self._connect_timeout_s:
            raise TimedOut("dial", timeout_s)
        raise ConnectFailed(host, reason)

    def _answers(self, host: str, timeout_s: float) -> list[Answer]:
        ends_at = time.monotonic() + timeout_s
        found: list[Answer] = []
        failure: ResolverFailed | None = None
        for kind in ("A", "AAAA"):
            try:
                found.append(self.resolver.resolve(host, kind, timeout_s=ends_at - time.monotonic()))  # type: ignore[arg-type]  # a loop over literals
            except NameNotFound:
                continue
            except ResolverFailed as caught:
                failure = caught
        if not found:
            raise failure or NameNotFound(host, "A or AAAA")
        return found


def from_settings(settings: Settings) -> Gateway:
    """Make the gateway of a worker.

    Raises:
        ResolverFailed: if the address of the cluster's own Redis cannot be found out: then it could not be guarded.
        SettingsError: if a name server is no address.
    """
    egress = settings.egress
    judge = Judge(egress.allow_cidrs, egress.allow_hosts, forbidden.endpoints(settings))
    return Gateway(judge, Resolver.from_settings(settings.network), settings.api.connect_timeout_s)


def _connect(address: str, port: int, timeout_s: float, cancelled: CancelToken) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        with cancelled.calling(partial(wake, sock)):
            if cancelled.is_set():
                raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
            sock.connect((address, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def wake(sock: socket.socket) -> None:
    """End a connection under the thread that waits on it; on Linux this ends a connect under way, too (tcp(7))."""
    with suppress(OSError):
        # Not ssl's own shutdown: it drops the TLS layer under a thread that reads.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _reason(failure: OSError) -> str:
    return "timed out" if isinstance(failure, TimeoutError) else (failure.strerror or type(failure).__name__)
