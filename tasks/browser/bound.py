"""What bounds one call about a page, and what it becomes when that has passed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from gaia.errors import (
    GaiaError,
    NavigationFailed,
    PageTimedOut,
    PageTooLarge,
    PoolExhausted,
    ScriptFailed,
    StepFailed,
)
from tasks.browser.page import MOMENT_S, Page
from tasks.scope import Scope

OUTER_S: Final = MOMENT_S + 2.0
"""For the picture, and for storing it; within it nobody waits for a page."""

Keep = Callable[[bytes], str]
"""Stores a picture, in any thread; gives its reference for an error, "" if that failed."""


class Bound:
    """The time of one call. Made in the calling thread, used in the loop."""

    def __init__(self, scope: Scope, timeout_s: float, keep: Keep) -> None:
        """Leave a second of the deadline, or a fifth of it if there is not much, for the picture in an error."""
        self.operation = scope.operation
        self.whole_s = scope.bound_s()
        self.timeout_s = min(timeout_s, max(self.whole_s - MOMENT_S, self.whole_s * 0.8))
        self.page: Page | None = None
        self.waits_for_place = False
        self._keep = keep
        self._until: float | None = None
        self._last = 0.0

    @asynccontextmanager
    async def running(self, page: Page | None = None, *, places: int = 0) -> AsyncIterator[None]:
        """Bound what is done inside.

        Raises:
            PageTimedOut: if the time passed; `PoolExhausted` if it passed before a tab came free.
        """
        self.page = page
        try:
            async with self._timeout():
                yield
        except TimeoutError:
            if self.waits_for_place:
                raise PoolExhausted("browser tabs", places, round(self.timeout_s, 3)) from None
            raise self._late("") from None

    @asynccontextmanager
    async def illustrating(self, page: Page) -> AsyncIterator[None]:
        """Take a picture of the page along with the failure of what is done inside, or when its time has passed."""
        self.page = page
        try:
            # A little sooner than the bound around it, whose end would dispose of the page unseen.
            async with self._timeout():
                yield
        except TimeoutError:
            raise self._late(await self._moment()) from None
        except (NavigationFailed, PageTooLarge, StepFailed, ScriptFailed) as failure:
            raise await self._illustrated(failure) from None

    def _timeout(self) -> asyncio.Timeout:
        if self._until is None:
            now = asyncio.get_running_loop().time()
            self._until, self._last = now + self.timeout_s, now + self.whole_s
            return asyncio.timeout_at(self._until + OUTER_S)
        return asyncio.timeout_at(self._until)

    def _late(self, picture: str) -> PageTimedOut:
        return PageTimedOut(self.operation, self.timeout_s, "" if self.page is None else self.page.url, picture)

    async def _illustrated(self, failure: GaiaError) -> GaiaError:
        picture = await self._moment()
        return type(failure)(*failure.args[:-1], picture)

    async def _moment(self) -> str:
        if self.page is None or not self.page.target:
            return ""
        left_s = self._last - asyncio.get_running_loop().time()
        picture = await self.page.moment(min(MOMENT_S, left_s * 0.7))  # the rest is for storing it
        return "" if picture is None else await asyncio.to_thread(self._keep, picture)
