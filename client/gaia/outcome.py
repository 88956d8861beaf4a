"""What became of one of many."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from gaia.errors import GaiaError

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True)
class Outcome(Generic[R_co]):
    """A result or an error, in place of raising it: one failed item fails no other."""

    ok: bool
    result: R_co | None = None
    error: GaiaError | None = None

    def unwrap(self) -> R_co:
        """Give the result, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]  # ok says that it is there
