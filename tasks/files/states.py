"""How the roots of this worker are: for statistics and health."""

import os
from collections.abc import Sequence

from gaia.contracts import files
from gaia.errors import GaiaError
from tasks.files.meter import Meter
from tasks.roots.roots import Roots
from tasks.roots.usage import Quota
from tasks.scope import Scope


def of_roots(roots: Roots, scope: Scope) -> tuple[files.RootState, ...]:
    """Give the state of each root."""
    return tuple(_of_root(roots, name, scope) for name in roots.names)


def health(states: Sequence[files.RootState], meter: Meter) -> files.FileHealth:
    """Judge."""
    reasons = [f"root {each.name!r}: {each.reason}" for each in states if each.reason]
    if meter.full:
        reasons.append(f"all {meter.limit} places are taken")
    if not states:
        reasons.append("no root is configured")
    if not any(each.usable for each in states):
        return files.FileHealth(status="unhealthy", reasons=tuple(reasons), roots=tuple(states))
    return files.FileHealth(status="degraded" if reasons else "healthy", reasons=tuple(reasons), roots=tuple(states))


def _of_root(roots: Roots, name: str, scope: Scope) -> files.RootState:
    local, quota = name in roots.local, roots.quota(name) or Quota()
    try:
        base = roots.descriptor(f"{name}:")
        if os.fstat(base).st_nlink == 0:
            return _unusable(name, local, "the directory was deleted")
        found = os.fstatvfs(base)
    except (GaiaError, OSError) as failure:
        return _unusable(name, local, str(failure))
    reason, used = "", None
    try:
        annex = roots.annex(f"{name}:")
        if not os.access(".", os.W_OK, dir_fd=base) or found.f_flag & os.ST_RDONLY:
            reason = "it cannot be written"
        if quota != Quota():
            used = annex.usage.read(f"{name}:", scope)
    except (GaiaError, OSError) as failure:
        reason = f"it cannot be written ({failure})"
    return files.RootState(
        name=name,
        local=local,
        usable=True,
        writable=not reason,
        free_bytes=found.f_bavail * found.f_frsize,
        reason=reason,
        identity=roots.identity(name),
        used_bytes=None if used is None else used.size_bytes,
        used_files=None if used is None else used.files,
        quota_bytes=quota.size_bytes,
        quota_files=quota.files,
    )


def _unusable(name: str, local: bool, reason: str) -> files.RootState:  # noqa: FBT001 - as the field
    return files.RootState(name=name, local=local, usable=False, writable=False, free_bytes=0, reason=reason)
