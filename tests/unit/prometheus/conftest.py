from pathlib import Path

import pytest

from tests.support import debian


@pytest.fixture(scope="package")
def promtool() -> Path:
    found = debian.program("promtool")
    if found is None:
        pytest.skip("NOT CHECKED: this machine has no promtool: `python -m tests.support.debian`")
    return found
