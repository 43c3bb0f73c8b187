"""Ctrl-C while Dagster is loaded."""

import gc
import signal

import pytest

from sessions_pipeline.cli.terminal import heavy_imports


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_during_imports_takes_effect_after_they_are_complete(number: signal.Signals) -> None:
    done = list[str]()

    def load() -> None:
        with heavy_imports():
            signal.raise_signal(number)
            done.append("imports")

    # The tests themselves may run under `nohup` or in the background, where a signal is ignored.
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            load()
        assert done == ["imports"]
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_nohup_or_a_shell_ignores_is_ignored_during_imports_too(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with heavy_imports():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_IGN
        assert gc.isenabled()
    finally:
        signal.signal(number, before)


def test_an_error_during_imports_is_raised_unchanged() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ImportError, match="dagster"), heavy_imports():
        raise ImportError("dagster")
    assert signal.getsignal(signal.SIGINT) is before
