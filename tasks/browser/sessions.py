"""The sessions of a worker: contexts with tabs that live from call to call, until they are closed or idle for too long.

The `Sessions` own them, each with its leases. They live in the pool's loop. What they hold dies with the worker.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from gaia.contracts.pages import Context, SessionState, TabState, Viewport
from gaia.errors import GaiaError, SessionMissing, TabMissing
from tasks.browser.bound import Bound
from tasks.browser.devtools import ProtocolError
from tasks.browser.emulation import emulate
from tasks.browser.instance import Instance
from tasks.browser.page import Page
from tasks.browser.pool import Pool

REMEMBERED: Final = 1000
LOOK_S: Final = 1.0


class Holder(Protocol):
    """Gives ids that lead calls to this worker: `tasks.runtime.identity.Identity`."""

    def hold(self) -> str:
        """Give an id for a thing that lives here from now on."""

    def release(self, holder_id: str) -> None:
        """Say that a thing has ended."""


@dataclass(eq=False)
class Session:
    """One session. `leases` holds each tab's slot of the cluster's limits."""

    id: str
    tenant: str | None
    given: Context
    viewport: Viewport
    idle_s: float
    instance: Instance
    context: str | None
    owns_instance: bool
    tabs: dict[str, Page] = field(default_factory=dict)
    locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    leases: dict[str, ExitStack] = field(default_factory=dict)
    extensions: list[str] = field(default_factory=list)
    next_extension: int = 0
    busy: int = 0
    entered: bool = False
    opened_at: float = field(default_factory=time.monotonic)
    used_at: float = field(default_factory=time.monotonic)


class Sessions:
    """To be used in the pool's loop alone."""

    def __init__(self, pool: Pool, holder: Holder) -> None:
        """Hold none."""
        self._pool = pool
        self._holder = holder
        self._ended: dict[str, str] = {}
        self.all: dict[str, Session] = {}
        pool.sessions = lambda: len(self.all)
        pool.each_look.append(self.expire)

    async def open(self, page: Page, session: Session, bound: Bound) -> str:
        """Take up a session whose first page is open; give the tab's id."""
        await emulate(page, session.given, session.viewport, bound.operation)
        await page.record_console()
        self.all[session.id], session.entered = session, True
        self._pool.happened("sessions_opened")
        return self._enter(session, page)

    def new_id(self) -> str:
        """Give the id of a session to be."""
        return self._holder.hold()

    def forget_id(self, session_id: str) -> None:
        """Undo `new_id`."""
        self._holder.release(session_id)

    def keep(self, session: Session, name: str, leases: ExitStack) -> None:
        """Hand a tab's slot of the limits over to it.

        Raises:
            SessionMissing: if the session has ended meanwhile; the slot stays the caller's.
        """
        if name not in session.tabs:
            self.get(session.id)
            raise TabMissing(session.id, name)
        session.leases[name] = leases.pop_all()

    def get(self, session_id: str) -> Session:
        """Give a session.

        Raises:
            SessionMissing: with what became of it.
        """
        found = self.all.get(session_id)
        if found is None:
            raise SessionMissing(session_id, self._ended.get(session_id, "it never was, or it ended long ago"))
        return found

    @asynccontextmanager
    async def using(self, session_id: str, tab: str | None) -> AsyncIterator[tuple[Session, str, Page]]:
        """Give a tab for one call at a time; the session does not expire meanwhile.

        Raises:
            SessionMissing, TabMissing: if there is none.
        """
        session = self.get(session_id)
        name = tab if tab is not None else next(iter(session.tabs), "")
        session.busy += 1
        try:
            if name not in session.tabs:
                raise TabMissing(session.id, name)
            async with session.locks[name]:
                page = session.tabs.get(name)
                if page is None:
                    raise TabMissing(session.id, name)
                try:
                    yield session, name, page
                finally:
                    if page.crashed and session.tabs.get(name) is page:
                        await self.close_tab(session, name)
        finally:
            session.busy -= 1
            session.used_at = time.monotonic()

    async def open_tab(self, session: Session, bound: Bound) -> tuple[str, Page]:
        """Open one more tab."""
        await self._pool.reserve(session.tenant, bound)
        try:
            page = await self._pool.open(session.instance, session.context)
        except BaseException:
            self._pool.unreserve(session.tenant)
            raise
        if self.all.get(session.id) is not session:  # it ended meanwhile, its context with it
            await asyncio.shield(self._pool.close_page(page))
            self._pool.unreserve(session.tenant)
            self.get(session.id)
        name = self._enter(session, page)
        try:
            await emulate(page, session.given, session.viewport, bound.operation)
            await page.record_console()
        except BaseException:
            await asyncio.shield(self.close_tab(session, name))
            raise
        return name, page

    async def close_tab(self, session: Session, name: str) -> bool:
        """Close a tab; say whether there was one."""
        page = session.tabs.pop(name, None)
        if page is None:
            return False
        session.locks.pop(name, None)
        lease = session.leases.pop(name, None)
        try:
            await self._pool.close_page(page)
        finally:
            self._pool.unreserve(session.tenant)
            if lease is not None:
                await asyncio.to_thread(lease.close)
        return True

    async def close(self, session_id: str, reason: str) -> bool:
        """End a session with all its tabs; say whether there was one."""
        session = self.all.pop(session_id, None)
        if session is None:
            return False
        self._ended[session_id] = reason
        while len(self._ended) > REMEMBERED:
            del self._ended[next(iter(self._ended))]
        tabs = [*session.tabs.values()]
        session.tabs.clear()
        try:
            await self._end(session, tabs)
        finally:
            for _ in tabs:
                self._pool.unreserve(session.tenant)
            self._holder.release(session.id)
            leases, session.leases = [*session.leases.values()], {}
            for each in leases:
                await asyncio.to_thread(each.close)
        return True

    async def close_all(self) -> None:
        """End every session."""
        await asyncio.gather(*(self.close(each, "the worker is stopping") for each in [*self.all]))

    async def expire(self) -> None:
        """End the sessions that were idle for too long, or whose browser is gone."""
        now = time.monotonic()
        for each in [*self.all.values()]:
            if each.instance.dead:
                await self.close(each.id, "its browser crashed")
            elif not each.busy and now - each.used_at > each.idle_s:
                self._pool.happened("sessions_expired")
                await self.close(each.id, f"it was idle for {each.idle_s:g} s")

    async def state(self, session: Session) -> SessionState:
        """Describe a session."""
        now = time.monotonic()
        idle_s = 0.0 if session.busy else now - session.used_at
        tabs = [await _described(name, page) for name, page in [*session.tabs.items()]]
        return SessionState(
            id=session.id,
            tabs=tuple(tabs),
            age_s=round(now - session.opened_at, 3),
            idle_s=round(idle_s, 3),
            expires_in_s=round(max(0.0, session.idle_s - idle_s), 3),
            extensions=tuple(session.extensions),
            tenant=session.tenant,
        )

    def _enter(self, session: Session, page: Page) -> str:
        name = secrets.token_hex(4)
        session.tabs[name], session.locks[name] = page, asyncio.Lock()
        return name

    async def _end(self, session: Session, tabs: list[Page]) -> None:
        for each in tabs:
            each.abandon()
        if session.owns_instance:
            await self._pool.end(session.instance)
        elif tabs:
            await self._pool.dispose(tabs[0], tabs=len(tabs))
        elif session.context is not None and not session.instance.dead:
            with suppress(GaiaError, ProtocolError):
                given = {"browserContextId": session.context}
                await session.instance.devtools.call("Target.disposeBrowserContext", given)


async def _described(name: str, page: Page) -> TabState:
    try:
        async with asyncio.timeout(LOOK_S):
            told = await page.instance.devtools.call("Target.getTargetInfo", {"targetId": page.target})
    except (GaiaError, ProtocolError, TimeoutError):
        return TabState(name, page.url, "")
    return TabState(name, told["targetInfo"]["url"], told["targetInfo"]["title"])
