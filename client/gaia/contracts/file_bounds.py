"""What the calls of the `files` queue may ask for."""

from typing import Any, Final

from gaia.contracts.base import Call

PATH_LIMIT: Final = 4096
"""PATH_MAX of Linux, limits.h."""

BODY_LIMIT_BYTES: Final = 64 * 1024 * 1024
"""What a call may read into a result."""

PAGE_LIMIT: Final = 100_000
"""Items in one page."""

BATCH_LIMIT: Final = 1000

QUERY_LIMIT: Final = 1024
CURSOR_LIMIT: Final = 2 * PATH_LIMIT


def check_path(call: Call[Any], field_name: str = "path") -> None:
    """Refuse what is not `root:relative/path`.

    Raises:
        InvalidCall: with the field's name.
    """
    call.require_text(field_name, limit=PATH_LIMIT)
    root, colon, rest = getattr(call, field_name).partition(":")
    call.require(field_name, "must be 'root:relative/path'", holds=bool(root and colon))
    call.require(field_name, "must be relative to its root", holds=not rest.startswith("/"))


def check_paths(call: Call[Any]) -> None:
    """Refuse a path or a target that is not `root:relative/path`.

    Raises:
        InvalidCall: with the field's name.
    """
    check_path(call)
    check_path(call, "target")


def check_page(call: Call[Any], *, most: int = PAGE_LIMIT) -> None:
    """Refuse a limit or a cursor that is out of bounds; None is no limit, and no cursor.

    Raises:
        InvalidCall: with the field's name.
    """
    call.require_between("limit", 1, most)
    if getattr(call, "cursor") is not None:  # noqa: B009 - every call with pages has one, `Call` has not
        call.require_text("cursor", limit=CURSOR_LIMIT)


def check_query(call: Call[Any]) -> None:
    """Refuse a query that is too long.

    Raises:
        InvalidCall: with the field's name.
    """
    query = getattr(call, "query")  # noqa: B009 - as above
    call.require("query", f"must have at most {QUERY_LIMIT} characters", holds=len(query) <= QUERY_LIMIT)


def check_archive(call: Call[Any]) -> None:
    """Refuse paths, or bounds of an archive's content, that are none.

    Raises:
        InvalidCall: with the field's name.
    """
    check_paths(call)
    call.require_between("max_bytes", 0, 2**50)
    call.require_between("max_entries", 0, 10_000_000)
