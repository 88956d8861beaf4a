"""The variables that a program sees."""

from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Final

from gaia.contracts import process

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LANG: Final = "C.UTF-8"

_CODE: Final = (
    *("LD_*", "DYLD_*", "GCONV_PATH", "GLIBC_TUNABLES"),
    *("IFS", "ENV", "BASH_ENV", "BASH_FUNC_*", "BASHOPTS", "SHELLOPTS", "PS4", "PROMPT_COMMAND"),
    *("PYTHON*", "PERL5*", "PERLLIB", "RUBYOPT", "RUBYLIB", "NODE_OPTIONS", "NODE_PATH"),
    *("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH", "GIT_*"),
    *("LUA_*", "PHPRC", "PHP_INI_SCAN_DIR", "R_PROFILE*", "R_ENVIRON*"),
    *("OPENSSL_CONF", "OPENSSL_ENGINES", "OPENSSL_MODULES"),
)
"""Variables by which a loader, a shell or an interpreter runs code of the caller's: no allow list admits them."""


def environment(call: process.Run | process.Start, allowed: Collection[str], home: str) -> dict[str, str]:
    """Give PATH, LANG, HOME and what the caller sets: nothing of the worker's own environment.

    Raises:
        InvalidCall: naming the variable that may not be set, never its value.
    """
    for name in call.env:
        if any(fnmatchcase(name, each) for each in _CODE):
            raise call.refuse("env", f"{name!r} may never be set: it can make a program run other code")
        call.require("env", f"{name!r} is not on the allow list (GAIA_PROCESS__ENV_ALLOWED)", holds=name in allowed)
    return {"PATH": PATH, "LANG": LANG, "HOME": home, **call.env}
