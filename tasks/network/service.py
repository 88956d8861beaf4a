"""Names, as a service."""

from gaia.contracts import network
from tasks.egress.resolver import Resolver
from tasks.scope import Scope


class NetworkService:
    """The operations of the `network` queue; the resolver's cache is all its state."""

    def __init__(self, *, resolver: Resolver) -> None:
        """Take the process's resolver, which the dialler uses too."""
        self._resolver = resolver

    def resolve(self, call: network.Resolve, scope: Scope) -> network.Resolved:
        """Look a name up.

        A cancel is seen when the answer is there, after `timeout_s` at the latest.

        Raises:
            NameNotFound: if the name does not exist, has no such record, or is no name.
            ResolverFailed: if no name server answered in time.
        """
        try:
            answer = self._resolver.resolve(call.name, call.type, timeout_s=scope.bound_s(call.timeout_s))
        finally:
            scope.check()
        return network.Resolved(call.name, call.type, answer.addresses, round(answer.ttl_s, 3), answer.cached)

    def close(self) -> None:
        """Do nothing: there is nothing open between calls."""
