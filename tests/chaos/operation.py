"""The operation that the chaos runs perform, on three queues."""

from gaia.contracts.base import Call, Result, contract
from tasks.scope import Scope
from tasks.wiring import handles
from tests.chaos import ledger


@contract
class Marked(Result):
    """The number came by."""

    number: int


@contract
class Mark(Call[Marked], operation="chaos.mark"):
    """Note the number's start and end."""

    number: int
    run_s: float = 0.0


@contract
class MarkB(Call[Marked], operation="chaosb.mark"):
    """The same on a second queue."""

    number: int
    run_s: float = 0.0


@contract
class MarkC(Call[Marked], operation="chaosc.mark"):
    """The same on a third queue."""

    number: int
    run_s: float = 0.0


QUEUES = tuple(kind.QUEUE for kind in (Mark, MarkB, MarkC))


@handles(Mark)
def mark(call: Mark, scope: Scope) -> Marked:
    ledger.perform(call.number, call.run_s)
    return Marked(call.number)


@handles(MarkB)
def mark_b(call: MarkB, scope: Scope) -> Marked:
    ledger.perform(call.number, call.run_s)
    return Marked(call.number)


@handles(MarkC)
def mark_c(call: MarkC, scope: Scope) -> Marked:
    ledger.perform(call.number, call.run_s)
    return Marked(call.number)
