"""A root, the service over it both ways of opening, and a watch over descriptors and what is left."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.files.service import FilesService
from tasks.roots import openat2, walk
from tasks.roots.roots import Roots
from tasks.roots.usage import Quota
from tasks.scope import Scope

DESCRIPTORS = Path("/proc/self/fd")


class Door:
    """The service, asked as `door(call)`; `root` is the directory of `data:`, and of `full:`, which has a quota."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root = root
        self.roots = Roots({"data": root, "full": root.parent / "full"}, quotas={"full": Quota(10_000, 5)}, **options)
        self.service = FilesService(roots=self.roots)
        self.scope = Scope.lasting(60)

    def __call__(self, call: Any) -> Any:
        return getattr(self.service, call.OPERATION.partition(".")[2])(call, self.scope)

    def names(self, place: str = "") -> list[str]:
        return sorted(each.name for each in (self.root / place).iterdir() if each.name != ".gaia")

    def drafts(self) -> list[Path]:
        return [each for root in (self.root, self.root.parent / "full") for each in root.glob(".gaia/drafts/*")]


def descriptors() -> int:
    return len(list(DESCRIPTORS.iterdir()))


@pytest.fixture(scope="module", autouse=True)
def nothing_to_collect() -> None:
    """Close now what other modules' garbage holds open: collected during a test, it would count as closed by that."""
    gc.collect()


@pytest.fixture(params=[openat2.open_beneath, walk.open_beneath], ids=["openat2", "walk"])
def door(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Door]:
    if request.param is openat2.open_beneath and not openat2.available():
        pytest.skip("this kernel has no openat2")
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    before = descriptors()
    found = Door(root, open_beneath=request.param)
    yield found
    assert found.drafts() == []
    found.service.close()
    found.roots.close()
    assert descriptors() == before
    assert [each.name for each in (tmp_path / "outside").iterdir()] == ["secret"]
    assert (tmp_path / "outside" / "secret").read_bytes() == b"secret"
