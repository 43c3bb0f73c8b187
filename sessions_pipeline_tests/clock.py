"""A fake clock, for code that waits."""

import threading


class Clock:
    """A clock in seconds. `wait` returns at once, moves the clock on, and records how long it was asked to wait."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float | None] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, _: threading.Condition, seconds: float | None) -> None:
        self.waits.append(seconds)
        self.now += seconds or 0
