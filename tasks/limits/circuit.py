"""The state machine of a circuit breaker, as arithmetic on one record; the diagram is in ARCHITECTURE.md.

`lua/circuit.lua` is this module's twin; tests compare them. Times are whole microseconds of whatever clock the caller
has.
"""

from dataclasses import dataclass
from typing import Final

from tasks.limits.protocols import Rules, State

SECOND_US: Final = 1_000_000

PROBE_POLL_US: Final = SECOND_US
"""While a probe is under way it is worth asking again after so long."""


@dataclass
class Circuit:
    """The record. `open_until_us` is 0 while closed; `probe` is the id of the one under way, "" if there is none."""

    failures: int = 0
    open_until_us: int = 0
    successes: int = 0
    probe: str = ""
    probe_until_us: int = 0
    held_until_us: int = 0

    def state(self, now_us: int) -> State:
        """Give the state."""
        if not self.open_until_us:
            return State.CLOSED
        return State.OPEN if now_us < self.open_until_us else State.HALF_OPEN

    def enter(self, rules: Rules, now_us: int, probe: str) -> int | str:
        """Give "" for a passage, `probe` for that of a probe, or how many microseconds the caller stays out."""
        if self.is_held(now_us):
            return self.held_until_us - now_us
        state = self.state(now_us)
        if state is State.CLOSED:
            return ""
        if state is State.OPEN:
            return self.open_until_us - now_us
        if self.probe and now_us < self.probe_until_us:
            return min(self.probe_until_us - now_us, PROBE_POLL_US)
        self.probe, self.probe_until_us = probe, now_us + round(rules.probe_s * SECOND_US)
        return probe

    def succeeded(self, rules: Rules, now_us: int, probe: str) -> None:
        """Count a success: in a closed circuit for anyone, in a half-open one for its probe."""
        if self.state(now_us) is State.CLOSED:
            self.failures = 0
        elif probe and probe == self.probe:
            self.probe = ""
            self.successes += 1
            if self.successes >= rules.success_threshold:
                self.failures = self.open_until_us = self.successes = 0

    def failed(self, rules: Rules, now_us: int, probe: str) -> None:
        """Count a failure; the last of its threshold, or that of the probe, opens the circuit."""
        if self.state(now_us) is State.CLOSED:
            self.failures += 1
        elif not probe or probe != self.probe:
            return
        if self.open_until_us or self.failures >= rules.failure_threshold:
            self.open_until_us = now_us + max(1, round(rules.open_s * SECOND_US))
            self.successes, self.probe = 0, ""

    def hold(self, now_us: int, hold_us: int) -> None:
        """Let nobody through for so long; a hold that lasts longer stands."""
        self.held_until_us = max(self.held_until_us, now_us + hold_us)

    def is_held(self, now_us: int) -> bool:
        """Say whether everybody is held off."""
        return now_us < self.held_until_us

    def abandoned(self, probe: str) -> None:
        """Let the next caller be the probe."""
        if probe and probe == self.probe:
            self.probe = ""
