"""Whether this machine permits what the settings of the `process` queue ask for; looked at when a worker starts."""

import os
from pathlib import Path

from config.programs import Process
from gaia.errors import InvalidSetting
from tasks.process import executables
from tasks.process.launcher import groups

ENFORCEMENT = "GAIA_PROCESS__ENFORCEMENT"


def require(settings: Process) -> None:
    """Refuse what no program could ever start with. A glob may match nothing yet.

    Raises:
        InvalidSetting: an executable is not there, or limits cannot be held as demanded.
    """
    for entry in settings.executables:
        if not executables.is_glob(entry) and not (Path(entry).is_file() and os.access(entry, os.X_OK)):
            raise InvalidSetting(executables.SETTING, f"names {entry!r}, which is no program on this machine")
    if settings.enforcement in ("cgroup2", "cgroup1"):
        beneath = None if settings.cgroup is None else str(settings.cgroup)
        site = groups.find(groups.name_of(os.getpid(), 0), settings.enforcement, beneath)
        if site is None:
            raise InvalidSetting(ENFORCEMENT, f"is {settings.enforcement}, which this machine does not permit")
        site.remove()
