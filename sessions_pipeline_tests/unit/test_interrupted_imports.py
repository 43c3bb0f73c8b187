"""Ctrl-C while Dagster is loaded."""

import signal

import pytest

from sessions_pipeline.cli.terminal import heavy_imports


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_amid_imports_waits_until_they_are_whole_and_then_interrupts(number: signal.Signals) -> None:
    before, done = signal.getsignal(number), list[str]()

    def load() -> None:
        with heavy_imports():
            signal.raise_signal(number)
            done.append("imports")

    with pytest.raises(KeyboardInterrupt):
        load()
    assert done == ["imports"]
    assert signal.getsignal(number) is before


def test_what_fails_while_modules_are_loaded_is_told_as_it_is() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ImportError, match="dagster"), heavy_imports():
        raise ImportError("dagster")
    assert signal.getsignal(signal.SIGINT) is before
