"""Ctrl-C while Dagster is loaded."""

import signal

import pytest

from sessions_pipeline.cli.terminal import heavy_imports


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_during_imports_takes_effect_after_they_are_complete(number: signal.Signals) -> None:
    before, done = signal.getsignal(number), list[str]()

    def load() -> None:
        with heavy_imports():
            signal.raise_signal(number)
            done.append("imports")

    with pytest.raises(KeyboardInterrupt):
        load()
    assert done == ["imports"]
    assert signal.getsignal(number) is before


def test_an_error_during_imports_is_raised_unchanged() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ImportError, match="dagster"), heavy_imports():
        raise ImportError("dagster")
    assert signal.getsignal(signal.SIGINT) is before
