"""A profile as others read it: pprof's protobuf, speedscope's JSON, folded lines, and a flame graph in SVG."""

import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from html import escape
from pathlib import PurePath
from typing import Any, Final

from tasks.profiling.profile import Frame, Profile

SPEEDSCOPE: Final = "https://www.speedscope.app/file-format-schema.json"
_UNITS: Final = {"nanoseconds": "nanoseconds", "bytes": "bytes", "count": "none"}

WIDTH: Final = 1200
ROW: Final = 17
NARROWEST: Final = 0.4
"""Pixels below which a frame is left out of the picture."""


def label(frame: Frame) -> str:
    """Name a frame for people."""
    return f"{frame.function} ({PurePath(frame.file).name}:{frame.first_line or frame.line})"


# --- pprof: github.com/google/pprof, proto/profile.proto


def pprof(profile: Profile) -> bytes:
    """Give the gzipped protobuf that `go tool pprof` reads."""
    texts: dict[str, int] = {"": 0}
    locations: dict[Frame, int] = {}
    functions: dict[tuple[str, str], int] = {}
    rows = bytearray()

    def text(word: str) -> int:
        return texts.setdefault(word, len(texts))

    def kind(name: str, unit: str) -> bytes:
        return _number(1, text(name)) + _number(2, text(unit))

    types = b"".join(_bytes(1, kind(*each)) for each in profile.kinds)
    for stack, values in profile.stacks.items():
        ids = [locations.setdefault(frame, len(locations) + 1) for frame in reversed(stack)]
        rows += _bytes(2, _packed(1, ids) + _packed(2, map(int, values)))
    for frame, number in locations.items():
        function = functions.setdefault((frame.function, frame.file), len(functions) + 1)
        rows += _bytes(4, _number(1, number) + _bytes(4, _number(1, function) + _number(2, frame.line)))
    first = {(frame.function, frame.file): frame.first_line for frame in locations}
    for (name, file), number in functions.items():
        own = _number(1, number) + _number(2, text(name)) + _number(3, text(name)) + _number(4, text(file))
        rows += _bytes(5, own + _number(5, first[name, file]))
    last = profile.kinds[-1]
    period = _bytes(11, kind(*last)) + _number(12, 10_000_000 if last.name == "cpu" else 1)
    rows += _number(10, int(profile.seconds * 1e9)) + period
    table = b"".join(_bytes(6, word.encode("utf-8", "replace")) for word in texts)
    return gzip.compress(types + bytes(rows) + table, mtime=0)


def _varint(value: int) -> bytes:
    found = bytearray()
    value &= (1 << 64) - 1
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _number(tag: int, value: int) -> bytes:
    return _varint(tag << 3) + _varint(value) if value else b""


def _bytes(tag: int, body: bytes) -> bytes:
    return _varint(tag << 3 | 2) + _varint(len(body)) + body


def _packed(tag: int, values: Iterable[int]) -> bytes:
    return _bytes(tag, b"".join(map(_varint, values)))


# --- speedscope.app


def speedscope(profile: Profile) -> bytes:
    """Give the file that speedscope opens."""
    frames: dict[Frame, int] = {}
    samples, weights = [], []
    for stack, values in profile.stacks.items():
        samples.append([frames.setdefault(frame, len(frames)) for frame in stack])
        weights.append(values[-1])
    last = profile.kinds[-1]
    own = {"type": "sampled", "name": last.name, "unit": _UNITS[last.unit], "startValue": 0, "endValue": sum(weights)}
    names = [{"name": each.function, "file": each.file, "line": each.first_line or each.line} for each in frames]
    file = {"$schema": SPEEDSCOPE, "shared": {"frames": names}, "name": last.name, "exporter": "gaia"}
    return json.dumps({**file, "profiles": [{**own, "samples": samples, "weights": weights}]}).encode()


# --- folded lines, as flamegraph.pl takes them


def folded(profile: Profile) -> bytes:
    """Give a line a stack: its frames from the outermost, and its number."""
    lines: dict[str, float] = {}
    for stack, values in profile.stacks.items():
        name = ";".join(label(each).replace(";", ",") for each in stack)
        lines[name] = lines.get(name, 0) + values[-1]
    return "".join(f"{name} {int(value)}\n" for name, value in sorted(lines.items()) if int(value)).encode()


# --- a picture without scripts


def svg(profile: Profile) -> bytes:
    """Give a flame graph; a title shows what the mouse is over."""
    root: dict[str, Any] = {"value": 0.0, "below": {}}
    for stack, values in profile.stacks.items():
        if values[-1] > 0:
            _grow(root, stack, values[-1])
    total, kind = root["value"] or 1.0, profile.kinds[-1]
    boxes: list[str] = []
    depth = _draw(root, (0.0, 0, WIDTH / total), boxes, f"of {total:.0f} {kind.unit}", total)
    height = (depth + 1) * ROW
    title = f"{kind.name}, {total:.0f} {kind.unit} in {profile.seconds:.1f} s"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="monospace" font-size="11"><title>{escape(title)}</title>'
        f'<text x="4" y="12">{escape(title)}</text>'
    )
    return (head + "".join(boxes) + "</svg>\n").encode()


def _grow(root: dict[str, Any], stack: Iterable[Frame], value: float) -> None:
    root["value"] += value
    node = root
    for frame in stack:
        node = node["below"].setdefault(label(frame), {"value": 0.0, "below": {}})
        node["value"] += value


def _draw(node: Mapping[str, Any], place: tuple[float, int, float], boxes: list[str], what: str, total: float) -> int:
    """Draw what is below a node at `place`: left edge, depth, pixels a unit; give the greatest depth."""
    left, depth, scale = place
    deepest = depth
    for name, each in sorted(node["below"].items()):
        width = each["value"] * scale
        if width >= NARROWEST:
            boxes.append(_box(name, (left, depth + 1, width), f"{100 * each['value'] / total:.1f} % {what}"))
            deepest = max(deepest, _draw(each, (left, depth + 1, scale), boxes, what, total))
        left += width
    return deepest


def _box(name: str, place: tuple[float, int, float], share: str) -> str:
    left, depth, width = place
    hue = 20 + sum(name.encode()) % 35
    shown = escape(name[: int(width / 6.7)]) if width > 30 else ""  # noqa: PLR2004 - room for some letters
    top = depth * ROW
    return (
        f"<g><title>{escape(name)}: {escape(share)}</title>"
        f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{ROW - 1}" fill="hsl({hue},80%,65%)"/>'
        f'<text x="{left + 2:.1f}" y="{top + 12}">{shown}</text></g>'
    )


FORMATS: Final[dict[str, tuple[Callable[[Profile], bytes], str]]] = {
    "pprof": (pprof, "application/octet-stream"),
    "speedscope": (speedscope, "application/json"),
    "folded": (folded, "text/plain; charset=utf-8"),
    "svg": (svg, "image/svg+xml"),
    "json": (Profile.json, "application/json"),
}
"""How a profile can be had, and the type of that."""
