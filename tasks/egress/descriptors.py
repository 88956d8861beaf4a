"""How many files this process may hold open."""

import resource


def raised(files: int) -> int:
    """Raise the soft limit of open files to so many, as far as the hard one goes; give what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return max(files, 1)
    if soft < files:
        soft = files if hard == resource.RLIM_INFINITY else min(files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft
