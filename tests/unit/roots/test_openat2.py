"""What only the kernel's way of opening promises."""

import os
from pathlib import Path

import pytest

from tasks.roots import openat2


def test_a_descriptor_is_not_inherited_by_programs(tmp_path: Path) -> None:
    if not openat2.available():
        pytest.skip("this kernel has no openat2")
    root = os.open(tmp_path, os.O_PATH)
    fd = openat2.open_beneath(root, ".", os.O_RDONLY)
    assert not os.get_inheritable(fd)
    os.close(fd)
    os.close(root)
