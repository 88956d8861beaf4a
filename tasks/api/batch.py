"""Many requests of one call: who is next, who waits, and what became of each.

The batch lives in the thread of its call, and asks limits there; the engine's thread only moves bytes. A request that
a limit keeps out, or that is to be retried, waits in a heap, and holds none of the batch's places meanwhile.
"""

import heapq
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final

from gaia import redaction
from gaia.contracts import api
from gaia.errors import (
    BodyTooLarge,
    ConnectFailed,
    DeadlineExceeded,
    GaiaError,
    InternalError,
    TimedOut,
)
from gaia.outcome import Outcome
from tasks.api import outgoing
from tasks.api.gate import Passing, names_of, refusal
from tasks.api.incoming import Answer
from tasks.api.outgoing import Outgoing
from tasks.api.parts import Parts
from tasks.api.proxies import Proxy, chosen
from tasks.api.redirects import Redirects
from tasks.api.transfer import Transfer
from tasks.limits.protocols import Refused
from tasks.scope import Scope

ADDRESSES_KEPT_S: Final = 5.0
"""A batch asks for a host's addresses again after so long; the resolver's cache knows their real time."""

LONGEST_S: Final = 60.0
"""Of one wait for news."""

CLOSE_S: Final = 0.01
"""A transfer that ends so shortly before the deadline was bounded by it."""

Place = tuple[str, int]


@dataclass(eq=False)
class Item:
    """One request of a batch."""

    index: int
    call: api.Request
    redirects: Redirects
    sent: Outgoing | None = None
    proxy: Proxy | None = None
    attempt: int = 1
    started_at: float = 0.0
    ends_at: float = 0.0
    sent_at: float = 0.0
    passing: Passing | None = None
    admitted: bool = False
    kept_out_s: float | None = None


@dataclass
class Batch:
    """One `request_many`. For one thread, and once."""

    call: api.RequestMany
    scope: Scope
    parts: Parts
    _outcomes: list[Outcome[api.Response] | None] = field(default_factory=list)
    _ready: deque[Item] = field(default_factory=deque)
    _later: list[tuple[float, int, Item]] = field(default_factory=list)
    _flying: dict[Transfer, Item] = field(default_factory=dict)
    _looking: dict[Place, list[Item]] = field(default_factory=dict)
    _known: dict[Place, tuple[float, tuple[str, ...]]] = field(default_factory=dict)
    _news: "SimpleQueue[Any]" = field(default_factory=SimpleQueue)
    _done: int = 0
    _bytes: int = 0
    _serial: int = 0

    def run(self) -> api.Outcomes:
        """Send them all.

        Raises:
            Cancelled: of the call; what is under way is stopped.
        """
        self._outcomes = [None] * len(self.call.calls)
        self._ready.extend(Item(index, each, self._redirects(each)) for index, each in enumerate(self.call.calls))
        try:
            with self.scope.cancelled.calling(partial(self._news.put, None)):
                while self._done < len(self._outcomes) and self.scope.remaining_s() > 0:
                    self._fly()
                    if self._done < len(self._outcomes):
                        self._hear()
                    self.scope.progress(self._done, len(self._outcomes))
            if self.scope.cancelled.is_set():
                self.scope.check()
            self._give_up()
        finally:
            self._stop()
        return api.Outcomes(tuple(each for each in self._outcomes if each is not None))

    # --- sending

    def _fly(self) -> None:
        now = self._now()
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        started: list[Transfer] = []
        while self._ready and len(self._flying) + len(self._looking) < self.call.concurrency:
            item = self._ready.popleft()
            try:
                transfer = self._transfer(item, now)
            except GaiaError as error:
                self._failed(item, error)
                continue
            if transfer is not None:
                self._flying[transfer] = item
                started.append(transfer)
                self.parts.tally.started()
        if started:
            self.parts.engine.submit(started)

    def _transfer(self, item: Item, now: float) -> Transfer | None:
        """Give what the engine is to send, None if the item has to wait for something."""
        call = item.call
        if item.sent is None:
            item.sent = outgoing.first(call, self.parts.user_agent)
            item.proxy = chosen(self.parts.proxies, call)
            if item.attempt == 1:
                self.parts.gate.limits.tried(item.sent.host)
        if not item.redirects.hops and item.passing is None:
            item.started_at = now
        addresses = self._addresses(item, now)
        if addresses is None or not self._let_in(item, now):
            return None
        left_s = min(item.ends_at - now, self.scope.remaining_s())
        if left_s <= 0:
            raise TimedOut(self.scope.operation, call.timeout_s)
        item.sent_at = now
        return Transfer(
            sent=item.sent,
            fields=item.redirects.fields(item.sent),
            addresses=addresses,
            verify=call.verify,
            timeout_s=left_s,
            connect_timeout_s=self.parts.connect_timeout_s,
            limit_bytes=call.max_body_bytes,
            follows=call.max_redirects > 0,
            operation=self.scope.operation,
            whole_timeout_s=call.timeout_s,
            done=self._news.put,
            proxy=item.proxy,
        )

    def _let_in(self, item: Item, now: float) -> bool:
        """Ask the limits; an item that they keep out waits."""
        assert item.sent is not None  # noqa: S101 - made before
        host = item.sent.host
        names = names_of(item.call, host)
        if item.passing is None:
            found = self.parts.gate.ask(names, host)
            if not isinstance(found, Passing):
                return self._wait(item, found)
            item.passing = found
        if not item.admitted:
            leave = self.parts.gate.admit(names)
            if isinstance(leave, Refused):
                self._leave(item, None)
                return self._wait(item, leave.retry_after_s)
            item.admitted = True
            if leave.wait_s > 0:
                self._put_off(item, leave.wait_s)
                return False
        item.kept_out_s = None
        if not item.redirects.hops:
            item.ends_at = now + item.call.timeout_s
        return True

    def _wait(self, item: Item, seconds: float) -> bool:
        if item.kept_out_s is None:
            self.parts.tally.limited()
        item.kept_out_s = seconds
        self._put_off(item, seconds)
        return False

    def _put_off(self, item: Item, seconds: float) -> None:
        self._serial += 1
        heapq.heappush(self._later, (self._now() + seconds, self._serial, item))

    def _leave(self, item: Item, failure: BaseException | None) -> None:
        """Give back what the limits gave."""
        passing, item.passing, item.admitted = item.passing, None, False
        if passing is not None:
            self.parts.gate.done(passing, failure)

    def _addresses(self, item: Item, now: float) -> tuple[str, ...] | None:
        """Give the judged addresses of the item's host, None while they are looked up."""
        assert item.sent is not None  # noqa: S101 - made before
        origin = item.sent.address.origin
        to = item.proxy or origin
        place = (to.host, to.port)
        known = self._known.get(place)
        if known is not None and known[0] > now:
            return known[1]
        if place in self._looking:
            self._looking[place].append(item)
            return None
        try:
            future = self.parts.names.submit(self.parts.look_up, origin, item.proxy, self.scope.remaining_s())
        except RuntimeError:  # it was shut down
            raise ConnectFailed(origin.host, "the worker is stopping") from None
        self._looking[place] = [item]
        future.add_done_callback(lambda done: self._news.put((place, done)))
        return None

    # --- hearing

    def _hear(self) -> None:
        """Wait for something to happen, and take all that has."""
        due = [LONGEST_S, self.scope.remaining_s()]
        if self._later:
            due.append(self._later[0][0] - self._now())
        try:
            found = self._news.get(timeout=max(0.0, min(due)))
            while True:
                self._take(found)
                found = self._news.get_nowait()
        except Empty:
            return

    def _take(self, news: Any) -> None:
        if news is None:
            self.scope.check()
        elif isinstance(news, Transfer):
            item = self._flying.pop(news, None)
            if item is not None:
                self._landed(item, news)
        else:
            self._found(*news)

    def _found(self, place: Place, looked: "Future[tuple[str, ...]]") -> None:
        items = self._looking.pop(place)
        failure = looked.exception()
        if failure is None:
            self._known[place] = (self._now() + ADDRESSES_KEPT_S, looked.result())
            self._ready.extendleft(reversed(items))
            return
        error = (
            failure
            if isinstance(failure, GaiaError)
            else InternalError(self.scope.operation, type(failure).__name__, "while a name was looked up")
        )
        for each in items:
            self._failed(each, error)

    def _landed(self, item: Item, transfer: Transfer) -> None:
        error, answer = transfer.error, transfer.answer
        if isinstance(error, TimedOut) and self.scope.remaining_s() < CLOSE_S:
            error = DeadlineExceeded(self.scope.operation, 0.0)
        if item.passing is not None and answer is not None:
            item.passing.status = answer.status
        self._leave(item, error)
        if answer is None:
            failure = error or InternalError(self.scope.operation, "Transfer", "ended without an answer")
            self.parts.tally.broke(failure)
            self._failed(item, failure)
            return
        self.parts.tally.answered(answer.status, len(answer.body), self._now() - item.sent_at)
        try:
            self._answered(item, answer)
        except GaiaError as failure:
            self._failed(item, failure)

    def _answered(self, item: Item, answer: Answer) -> None:
        call, sent = item.call, item.sent
        assert sent is not None  # noqa: S101 - it was sent
        hop = item.redirects.following(sent, answer)
        if hop is not None:
            item.sent = hop
            self._ready.appendleft(item)
            return
        busy = self.parts.verdict.busy(call, answer, sent.host)
        if busy is not None and self._again(item, busy):
            return
        body = answer.unpacked(sent.host, call.max_body_bytes)
        self._bytes += len(body)
        if self._bytes > self.parts.batch_bytes:
            raise BodyTooLarge("the batch", self.parts.batch_bytes)
        elapsed_s = round(self._now() - item.started_at, 6)
        response = api.Response(answer.status, answer.headers(), body, sent.address.url, elapsed_s, item.attempt)
        self._conclude(item, Outcome(ok=True, result=response))

    def _failed(self, item: Item, error: GaiaError) -> None:
        self._leave(item, error)
        if not self._again(item, error):
            scrub = redaction.Scrubber(redaction.secrets_of(api.Request, item.call))
            self._conclude(item, Outcome(ok=False, error=error.scrubbed(scrub)))

    def _again(self, item: Item, error: GaiaError) -> bool:
        """Put another attempt off, if there is to be one."""
        host = item.sent.host if item.sent else ""
        left_s = self.scope.remaining_s()
        pause_s = max(item.call.retries().pause_s(item.attempt), getattr(error, "retry_after_s", 0.0))
        if pause_s >= left_s or not self.parts.verdict.again(item.call, error, host, item.attempt, left_s):
            return False
        self.parts.tally.count("retried")
        item.attempt, item.sent, item.redirects = item.attempt + 1, None, self._redirects(item.call)
        self._put_off(item, pause_s)
        return True

    # --- ending

    def _conclude(self, item: Item, outcome: Outcome[api.Response]) -> None:
        if self._outcomes[item.index] is None:
            self._outcomes[item.index] = outcome
            self._done += 1

    def _give_up(self) -> None:
        """Tell what is not done by the deadline."""
        waiting = {each.index: each for _, _, each in self._later}
        for index, outcome in enumerate(self._outcomes):
            if outcome is None:
                item = waiting.get(index)
                error: GaiaError = DeadlineExceeded(self.scope.operation, 0.0)
                if item is not None and item.kept_out_s is not None and item.sent is not None:
                    error = refusal(item.call, item.sent.host, item.kept_out_s)
                self._outcomes[index] = Outcome(ok=False, error=error)

    def _stop(self) -> None:
        if self._flying:
            self.parts.engine.abandon(list(self._flying))
            stopped = DeadlineExceeded(self.scope.operation, 0.0)
            for _ in self._flying:
                self.parts.tally.broke(stopped)
        left = [*self._flying.values(), *(each for _, _, each in self._later), *self._ready]
        for each in left:
            if each.passing is not None:
                passing, each.passing = each.passing, None
                self.parts.gate.done(passing, InterruptedError())
        self._flying.clear()

    def _redirects(self, call: api.Request) -> Redirects:
        return Redirects(call.max_redirects, self.parts.tally)

    def _now(self) -> float:
        return self.scope.clock.monotonic()
