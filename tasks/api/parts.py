"""What a batch needs of its service."""

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

from tasks.api.engine import Engine
from tasks.api.gate import Gate
from tasks.api.outgoing import Origin
from tasks.api.proxies import Proxy, judge_behind
from tasks.api.tally import Tally
from tasks.api.verdict import Verdict
from tasks.egress.gateway import Gateway


@dataclass(frozen=True)
class Parts:
    """Of one process, shared by all its batches."""

    engine: Engine
    gate: Gate
    verdict: Verdict
    tally: Tally
    gateway: Gateway
    names: Executor
    proxies: Mapping[str, Proxy]
    user_agent: str
    connect_timeout_s: float
    batch_bytes: int

    def look_up(self, origin: Origin, proxy: Proxy | None, timeout_s: float) -> tuple[str, ...]:
        """Give the judged addresses to dial for an origin: its own, or those of the proxy.

        Raises:
            EgressDenied, NameNotFound, ResolverFailed: as the names say.
        """
        bound_s = max(0.001, min(timeout_s, self.connect_timeout_s))
        if proxy is None:
            return tuple(self.gateway.addresses(origin.host, origin.port, timeout_s=bound_s))
        judge_behind(self.gateway, origin, bound_s)
        return tuple(self.gateway.addresses(proxy.host, proxy.port, timeout_s=bound_s))
