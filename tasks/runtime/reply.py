"""A result on its way from a service to the store."""

from typing import Any

from gaia import codec, redaction
from tasks.broker import jsontext


class Reply:
    """An encoded result. Celery puts its repr into logs and events, so that is a redacted one."""

    __slots__ = ("_json", "_result", "_text")

    def __init__(self, result: object, blobs: codec.Blobs) -> None:
        """Encode at once, so that a large body is stored, or fails to be, inside the run."""
        self._json = codec.encode(result, blobs)
        self._result = result
        self._text: bytes | None = None

    @property
    def text(self) -> bytes:
        """Give the JSON text; a result that is stored for nobody is never written."""
        if self._text is None:
            self._text = jsontext.dumps(self._json)
        return self._text

    def __json__(self) -> dict[str, Any]:
        """Give the JSON object; kombu's encoder asks for it."""
        return self._json

    def __repr__(self) -> str:
        return redaction.show(self._result)
