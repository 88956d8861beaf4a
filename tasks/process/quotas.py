"""How many programs of a profile the whole cluster runs at once: a lease for each, renewed as long as it runs."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from gaia.errors import LimitExceeded
from tasks.limits.cluster import Limits
from tasks.limits.policy import levels
from tasks.limits.protocols import Away
from tasks.scope import Later, Scope


def pool(profile: str) -> tuple[str, ...]:
    """Name the slots of a profile, as `gaia limits set` does: `pool:process:build`."""
    return levels(within=f"pool:process:{profile}")


class Quotas:
    """Leases by profile. A killed worker's lapse by themselves. Thread-safe."""

    def __init__(self, limits: Limits) -> None:
        """Take leases of these limits; whoever made them closes them."""
        self._limits = limits

    @contextmanager
    def taken(self, scope: Scope, profile: str, at_most: int | None) -> Iterator[None]:
        """Hold a lease as long as the block lasts; a profile without a bound needs none, and no Redis.

        What operators set for `pool:process:<profile>` comes before `at_most`. A lease that is lost meanwhile ends
        nothing: programs run on.

        Raises:
            Later: if all are taken.
            Cancelled, DeadlineExceeded: of the call.
            Unreachable: with Redis away nothing is started under such a profile (fail closed).
        """
        with ExitStack() as stack:
            if not self._limits.policy.slots(pool(profile), at_most):
                yield  # most profiles, and short runs count
                return
            try:
                lease = self._limits.holding(scope, pool(profile), at_most=at_most, if_away=Away.FAIL_CLOSED)
                stack.enter_context(lease)
            except LimitExceeded as full:
                raise Later(full.retry_after_s) from None
            yield
