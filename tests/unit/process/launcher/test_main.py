import errno
import os
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from tasks.process.launcher import messages
from tasks.process.launcher.main import Launcher


def test_where_no_process_can_be_made_one_keeper_fails_and_the_launcher_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse() -> NoReturn:
        raise OSError(errno.EAGAIN, "no more processes")

    descriptors = psutil.Process().num_fds()
    worker, control = messages.pair()
    ours, theirs = messages.pair()
    launcher = Launcher.__new__(Launcher)
    launcher._site, launcher._made, launcher._namespace, launcher._keepers = None, 0, False, {}
    launcher._control = control
    monkeypatch.setattr(os, "fork", refuse)
    with worker, control, ours, theirs:
        messages.send(worker, {"keeper": 1}, [theirs.fileno()])
        theirs.close()
        launcher._take_message()
        ours.settimeout(5)
        assert messages.receive(ours) == messages.Message({})
    assert launcher._keepers == {}
    assert psutil.Process().num_fds() == descriptors
