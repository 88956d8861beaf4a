"""The section of the settings about Chromium."""

from pydantic import Field

from config.section import Section, Text


class Browser(Section):
    """Chromium."""

    chromium: Text | None = None
    """Path of the browser. By default the first found of the usual names on the PATH."""
    no_sandbox: bool = False
    """Run Chromium without its sandbox. Only for machines whose kernel forbids it; pages are then less confined."""
    user: Text = "nobody"
    """When the worker runs as root, Chromium runs under this user."""
    full_chromium: Text | None = None
    """Path of a full Chromium, for sessions with extensions. By default the first found on the PATH."""
    max_instances: int = Field(default=4, ge=1, le=200)
    """Browsers at once in one worker. Sessions with extensions have one each, and leave one for all others."""
    tabs_per_instance: int = Field(default=50, ge=1, le=200)
    """Tabs of one browser; one more starts another browser."""
    max_tabs: int = Field(default=200, ge=1, le=10_000)
    """Tabs at once in one worker."""
    tenant_tabs: int | None = Field(default=None, ge=1, le=10_000)
    """Tabs at once of one tenant in one worker. No limit by default; for the cluster see docs/limits.md."""
    warm_tabs: int = Field(default=1, ge=0, le=50)
    """Blank tabs in contexts of their own, opened ahead."""
    recycle_after: int = Field(default=500, ge=1)
    """Tabs after which a browser is replaced, since long-lived ones grow."""
    recycle_s: float = Field(default=3600.0, gt=0)
    """The age at which a browser is replaced."""
    recycle_bytes: int = Field(default=4 * 1024**3, gt=0)
    """The memory of all its processes at which a browser is replaced."""
    page_bytes: int = Field(default=1024**3, gt=0)
    """The memory of a page's process at which it is killed, looked at each second."""
    text_bytes: int = Field(default=16 * 1024 * 1024, gt=0)
    """Markup or text of a page that is larger is refused."""
    max_sessions: int = Field(default=50, ge=1, le=10_000)
    """Sessions at once in one worker."""
