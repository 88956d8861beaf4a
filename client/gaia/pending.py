"""A call that was submitted: its id, its result when it comes, its progress, and the way to cancel it."""

import asyncio
import time
from collections.abc import Generator
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from gaia import codec
from gaia.contracts.base import Call
from gaia.errors import Cancelled, Expired, GaiaError, InvalidResult, NoResult, NotReady, Unreachable, revive
from gaia.store import progress as progress_store
from gaia.store.progress import Progress
from gaia.store.results import Meta, Waiter

if TYPE_CHECKING:
    from gaia.client import Gaia

R_co = TypeVar("R_co", covariant=True)

GRACE_S: Final = 30.0
"""How long past the deadline `get` waits by default: a worker may still be storing the error."""


def seconds(duration: float | timedelta) -> float:
    """Give a duration as seconds."""
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)


class Pending(Generic[R_co]):
    """A submitted call. `await pending` waits as `get()` does, without blocking the event loop."""

    def __init__(
        self, gaia: "Gaia", call_id: str, kind: type[Call[R_co]], deadline: float, *, stored: bool = True
    ) -> None:
        """Made by `Gaia.submit` and `Gaia.pending`; `deadline` is seconds since the epoch."""
        self.id: Final = call_id
        self._gaia = gaia
        self._kind = kind
        self._deadline = deadline
        self.stored: Final = stored

    def __repr__(self) -> str:
        return f"Pending({self._kind.OPERATION}, id={self.id!r})"

    def get(self, timeout: float | timedelta | None = None) -> R_co:
        """Wait for the result, by default until half a minute past the call's deadline.

        Raises:
            NotReady: if there is none after `timeout` (float seconds or `timedelta`). It is a `TimeoutError`.
            Unreachable: if Redis stayed away for the whole wait.
            NoResult: if the call was submitted with `result=False`.
            GaiaError: whatever the call ended with, as the worker raised it.
        """
        meta = self._peek()
        if meta is not None:
            return self._open(meta)
        wait_s = self._wait_s(timeout)
        waiter, began = self._gaia.waiter(), time.monotonic()
        future = waiter.wait(self.id)
        try:
            meta = future.result(wait_s)
        except (FutureTimeoutError, CancelledError):
            raise self._late(waiter, began) from None
        finally:
            waiter.forget(self.id, future)
        return self._open(meta)

    def __await__(self) -> Generator[Any, None, R_co]:
        """Wait for the result as `get()` does; the wait is bounded by the call's deadline."""
        return self._get_async().__await__()

    async def _get_async(self) -> R_co:
        if not self.stored:
            raise NoResult(self.id)
        wait_s = self._wait_s(None)
        waiter, began = self._gaia.waiter(), time.monotonic()
        future: Future[Meta] = waiter.wait(self.id)
        try:
            meta = await asyncio.wait_for(asyncio.wrap_future(future), wait_s)
        except TimeoutError:
            raise self._late(waiter, began) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Nobody cancelled the caller: its client was closed meanwhile.
            raise self._late(waiter, began) from None
        finally:
            waiter.forget(self.id, future)
        # A large body is fetched by a blocking client: not on the caller's loop.
        return await asyncio.to_thread(self._open, meta)

    def ready(self) -> bool:
        """Say whether the call has ended, well or not.

        Raises:
            NoResult, Unreachable: as `get`.
        """
        return self._peek(patient=False) is not None

    def progress(self) -> Progress | None:
        """Give how far the call is; None if it has not said."""
        with self._gaia.reaching_results():
            return progress_store.fetch(self._gaia.results(), self.id)

    def cancel(self) -> None:
        """Cancel the call; it then ends with `Cancelled`. One that has ended stays as it is.

        One that is delayed, or held up by a pause, ends at once; one that is queued, when a worker comes to it.

        Raises:
            Unreachable: Redis did not answer.
        """
        self._gaia.cancel(self.id, deadline=self._deadline)

    def _wait_s(self, timeout: float | timedelta | None) -> float:
        if timeout is not None:
            return max(0.0, seconds(timeout))
        return max(0.0, self._deadline - time.time()) + GRACE_S

    def _peek(self, *, patient: bool = True) -> Meta | None:
        """Read the stored result once. A patient caller goes on waiting while Redis is away."""
        if not self.stored:
            raise NoResult(self.id)
        try:
            return self._gaia.stored(self.id)
        except Unreachable:
            if patient:
                return None
            raise

    def _late(self, waiter: Waiter, began: float) -> GaiaError:
        if waiter.failure is not None:
            return Unreachable(self._gaia.result_url_shown, waiter.failure)
        return NotReady(self.id, round(time.monotonic() - began, 3))

    def _open(self, meta: Meta) -> R_co:
        """Turn what Celery stored into the result, or raise what it stored."""
        status, result = meta["status"], meta.get("result")
        if status == "SUCCESS":
            try:
                with self._gaia.reaching_results():
                    found: R_co = codec.decode(self._kind.RESULT, result, self._gaia.artifacts(), lenient=True)
            except codec.Mismatch as failure:
                raise InvalidResult(self._kind.OPERATION, failure.path, failure.reason) from None
            return found
        raise self._error(result if isinstance(result, dict) else {})

    def _error(self, stored: dict[str, Any]) -> GaiaError:
        kind, arguments = str(stored.get("exc_type", "unknown error")), stored.get("exc_message", "")
        if kind == "TaskRevokedError":
            # Celery's word for both: what `expires` dropped, and what an operator revoked.
            return Expired(self.id) if "expired" in str(arguments) else Cancelled(self.id)
        return revive(kind, arguments if isinstance(arguments, list | str) else str(arguments))
