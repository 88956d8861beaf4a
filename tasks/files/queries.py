"""What a query of a JSON document names, in a document that is whole.

A pointer (RFC 6901) names one value at most: `/items/0/name`. An item path names any number: `items.item.name`, in
which `item` stands for each element of an array; a member that is called `item` cannot be named by it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gaia.errors import BadDocument

EACH: Final = "item"


@dataclass(frozen=True)
class Query:
    """A query, compiled. No tokens are the whole document."""

    tokens: tuple[str, ...]
    pointer: bool

    @classmethod
    def parse(cls, text: str) -> "Query":
        """Read a pointer, which begins with a slash or is empty, or an item path."""
        if not text or text.startswith("/"):
            parts = text.split("/")[1:]
            return cls(tuple(each.replace("~1", "/").replace("~0", "~") for each in parts), pointer=True)
        return cls(tuple(text.split(".")), pointer=False)

    def goes_into(self, depth: int, key: str | int) -> bool:
        """Say whether the query goes on from the `depth`-th container (0 is the outermost) into a member or element."""
        token = self.tokens[depth]
        if isinstance(key, int):
            return token == str(key) if self.pointer else token == EACH
        return token == key

    def of_whole(self, document: Any) -> Iterator[Any]:
        """Give what is named in a document that is in memory."""
        return _named(document, self.tokens, pointer=self.pointer)


def one(query: Query, document: Any, path: str) -> Any:
    """Give the value that a pointer names.

    Raises:
        BadDocument: if it names none.
    """
    for found in query.of_whole(document):
        return found
    raise missing(query, path)


def missing(query: Query, path: str) -> BadDocument:
    """Make the error for a pointer that names nothing."""
    del query  # it is marked as a secret
    return BadDocument(path, "holds nothing at the pointer")


def _named(value: Any, tokens: Sequence[str], *, pointer: bool) -> Iterator[Any]:
    if not tokens:
        yield value
        return
    token, rest = tokens[0], tokens[1:]
    if isinstance(value, dict):
        if token in value:
            yield from _named(value[token], rest, pointer=pointer)
    elif isinstance(value, list):
        if not pointer:
            for each in value if token == EACH else ():
                yield from _named(each, rest, pointer=pointer)
        # RFC 6901 section 4: no leading zeros.
        elif token.isascii() and token.isdigit() and str(int(token[:10])) == token and int(token) < len(value):
            yield from _named(value[int(token)], rest, pointer=pointer)
