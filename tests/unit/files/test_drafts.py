import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gaia.errors import Cancelled
from tasks.files.drafts import Draft, Sink
from tasks.roots.annex import Annex


class Place:
    """A root, and its only directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        self.annex = Annex(self.fd)

    def put(
        self, body: bytes, *, durable: bool = False, absent: bool = False, check: Callable[[], None] = lambda: None
    ) -> None:
        with Draft(self.fd, self.annex) as draft:
            Sink(draft.fd, "data:f", check, None).write(body)
            if durable:
                os.fsync(draft.fd)
            draft.publish("f", absent=absent)

    def names(self) -> list[str]:
        return [each.name for each in self.root.iterdir() if each.name != ".gaia"]

    def drafts(self) -> list[str]:
        return [each.name for each in (self.root / ".gaia" / "drafts").iterdir()]

    def close(self) -> None:
        self.annex.close()
        os.close(self.fd)


@pytest.fixture(params=["unnamed", "named"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A root on a file system with, and as on one without, files that have no name."""
    if request.param == "named":
        real = os.open

        def refuse(path: str, flags: int, *rest: int, dir_fd: int | None = None) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            return real(path, flags, *rest, dir_fd=dir_fd)

        monkeypatch.setattr(os, "open", refuse)
    found = Place(tmp_path)
    yield found
    assert found.drafts() == []
    found.close()


@pytest.mark.parametrize("durable", [True, False])
def test_the_content_takes_the_place_of_the_old(place: Place, durable: bool) -> None:
    for body in (b"", b"one", bytes(3 << 20)):
        place.put(body, durable=durable)
        assert (place.root / "f").read_bytes() == body
    assert place.names() == ["f"]


def test_a_name_that_must_be_free_and_is_not_stays_as_it_was(place: Place) -> None:
    place.put(b"one", absent=True)
    with pytest.raises(FileExistsError):
        place.put(b"two", absent=True)
    assert (place.root / "f").read_bytes() == b"one"


def test_a_stop_between_two_chunks_leaves_the_old_content_alone(place: Place) -> None:
    (place.root / "f").write_bytes(b"old")
    asked = []

    def check() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise Cancelled("1")

    with pytest.raises(Cancelled):
        place.put(bytes(8 << 20), check=check)
    assert len(asked) == 3
    assert place.names() == ["f"]
    assert (place.root / "f").read_bytes() == b"old"


def test_a_directory_in_the_way_is_left_alone(place: Place) -> None:
    (place.root / "f").mkdir()
    with pytest.raises(IsADirectoryError):
        place.put(b"body")
    assert place.names() == ["f"]


def test_a_file_that_is_written_is_not_in_its_directory(place: Place) -> None:
    seen: list[list[str]] = []
    place.put(b"body", check=lambda: seen.append(place.names()))
    assert seen == [[]]


def test_a_sweep_removes_what_nobody_locks_and_nothing_else(tmp_path: Path) -> None:
    place = Place(tmp_path)
    left = tmp_path / ".gaia" / "drafts"
    (left / ".dead.gaia").write_bytes(b"part")
    (left / ".tree.gaia" / "inner").mkdir(parents=True)
    place.put(b"one")
    with Draft(place.fd, place.annex) as draft:
        draft._name_it()
        assert place.annex.sweep() == 2
        assert len(place.drafts()) == 1
        draft.publish("g")
    assert place.drafts() == []
    place.close()


def test_a_sealed_sink_takes_nothing(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "f", os.O_WRONLY | os.O_CREAT)
    sink = Sink(fd, "data:f", lambda: None, None)
    sink.write(b"one")
    sink.seal()
    assert sink.write(b"two") == 3
    os.close(fd)
    assert (tmp_path / "f").read_bytes() == b"one"
