"""Misbehaviour on demand, so that a reader can be tested against it.

A fault is a kind, how many answers it spoils (`times`, None for all), after how many it begins (`after`), and `value`:

| kind | value | what happens |
|---|---|---|
| `status` | 429, 500, 503, 401 … | that status with a JSON body; `retry_after` is sent as the header |
| `html` | 401, 403, 502 … | that status with an HTML body, as a firewall answers |
| `redirect` | address | 307 to it |
| `reset`, `truncated`, `not_json` | | the connection ends in mid-body; half a body; HTML with status 200 |
| `latency` | seconds | a late answer |
| `cap` | n | at most n records a page |
| `ignore_offset`, `repeat_last`, `unsorted` | | the page of offset 0; the last page for ever; records in reverse |
| `deprecated` | date | `Deprecation` and `Sunset` headers, of version 1 alone |
| `gone` | 404, 410 | version 1 is gone: that status with a JSON body; version 2 answers |
| `same_cursor` | | version 2 gives one cursor for ever |
"""

import threading
from dataclasses import asdict, dataclass
from typing import Any

KINDS = (
    "status",
    "html",
    "redirect",
    "reset",
    "truncated",
    "not_json",
    "latency",
    "cap",
    "ignore_offset",
    "repeat_last",
    "unsorted",
    "deprecated",
    "gone",
    "same_cursor",
)


@dataclass
class Fault:
    """One kind of misbehaviour; see the module's table."""

    kind: str
    value: Any = None
    times: int | None = 1
    after: int = 0
    retry_after: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind}: choose one of {', '.join(KINDS)}")


class Faults:
    """The faults in force; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, *faults: Fault) -> None:
        """Put faults in force."""
        with self._lock:
            self._faults += faults

    def clear(self) -> None:
        """Behave."""
        with self._lock:
            self._faults.clear()

    def as_dicts(self) -> list[dict[str, Any]]:
        """The faults in force, as JSON would hold them."""
        with self._lock:
            return [asdict(fault) for fault in self._faults]

    def take(self) -> dict[str, Fault]:
        """The faults of this answer by kind, counted down."""
        taken: dict[str, Fault] = {}
        with self._lock:
            for fault in list(self._faults):
                if fault.after > 0:
                    fault.after -= 1
                elif fault.kind not in taken:
                    taken[fault.kind] = fault
                    if fault.times is not None:
                        fault.times -= 1
                        if fault.times <= 0:
                            self._faults.remove(fault)
        return taken
