"""Private fields, taken out of a record before anything is written. Pure.

A path names properties from the record's top, separated by dots, `*` for any: `extra.metadata.git.author_email`,
`feedback_stats.*.values`. A leading `$.` is allowed. Everything else of the record stays as it was sent. The client
takes them out of whatever it reads, so that no reader can forget to.
"""

import json
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from sessions_pipeline.errors import SettingError
from sessions_pipeline.validation.json_text import split_array, split_members
from sessions_pipeline.validation.records import Record

Path = tuple[str, ...]
# Arrays in arrays on the way to a private property: more are nobody's data, and taking them apart is slow.
MOST_DEPTH = 50
# The record's place and identity: without them it could not be stored.
NEEDED = {"id", "tenant_id", "start_time"}


def parse_paths(texts: Iterable[str]) -> tuple[Path, ...]:
    """The paths in `SESSIONS_PIPELINE_REDACT`.

    Raises:
        SettingError: a path is empty, or names what a record can't be stored without.
    """
    paths = tuple(tuple(text.removeprefix("$.").split(".")) for text in texts)
    for path in paths:
        if not all(path):
            raise SettingError("SESSIONS_PIPELINE_REDACT", f"{'.'.join(path)}: write names separated by single dots")
        if len(path) == 1 and (path[0] in NEEDED or path[0] == "*"):
            raise SettingError("SESSIONS_PIPELINE_REDACT", f"{path[0]} is needed to store a session")
    return paths


def redact(record: Record, paths: Sequence[Path]) -> Record:
    """The record without the properties that the paths name; the same record if it has none of them.

    A property that is given twice goes each time.
    """
    payload = record.payload
    for path in paths:
        # An escape may hide a name; where there is none, most records are told without taking them apart.
        if "\\" in payload or all(name == "*" or f'"{name}"' in payload for name in path):
            payload = _redacted(payload, path)
    return record if payload == record.payload else replace(record, payload=payload)


def _redacted(payload: str, path: Path) -> str:
    try:
        return _without(payload, path)
    except (ValueError, RecursionError):
        # It will be rejected, but what is private must not be kept with it.
        return json.dumps({"redacted": "the record could not be read"})


def _without(text: str, path: Path, depth: int = 0) -> str:
    if depth > MOST_DEPTH:
        raise ValueError("is nested too deeply")
    if text.startswith("["):
        items = split_array(text)
        cut = [_without(item, path, depth + 1) for item in items]
        return text if cut == items else f"[{','.join(cut)}]"
    if not text.startswith("{"):
        return text
    sent = split_members(text)
    matches = [(name, value, path[0] in ("*", name)) for name, value in sent]
    kept = [
        (name, _without(value, path[1:], depth + 1) if matched else value)
        for name, value, matched in matches
        if not matched or len(path) > 1
    ]
    return text if kept == sent else "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in kept) + "}"
