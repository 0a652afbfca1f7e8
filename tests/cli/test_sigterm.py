"""SIGTERM outside training."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tlc_jax.cli import main
from tlc_jax.core.errors import StoppedEarly


class Told:
    """Gets SIGTERM while Python clears it away, where exceptions are dropped."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_that_python_drops_comes_again(monkeypatch) -> None:
    monkeypatch.setattr(main, "_AGAIN_SECONDS", 0.2)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGALRM)
    reached = False
    with pytest.raises(StoppedEarly), main._sigterm_as_exception():
        Told()
        reached = True
        time.sleep(10.0)
    assert reached
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGALRM)) == before


def test_a_stop_on_its_way_is_not_interrupted(monkeypatch) -> None:
    monkeypatch.setattr(main, "_AGAIN_SECONDS", 0.1)
    cleared = False
    with pytest.raises(StoppedEarly), main._sigterm_as_exception():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10.0)
        finally:
            time.sleep(0.5)
            cleared = True
    assert cleared
