"""A clock of the test's own, for what waits."""

import threading


class Clock:
    """Waiting takes no time, but moves it. Seconds."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float | None] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, _: threading.Condition, seconds: float | None) -> None:
        self.waits.append(seconds)
        self.now += seconds or 0
