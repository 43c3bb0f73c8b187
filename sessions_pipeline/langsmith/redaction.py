"""Removes private properties from a record before anything is written. Pure.

A path names properties from the record's top level down, separated by dots; `*` stands for any name:
`extra.metadata.git.author_email`, `feedback_stats.*.values`. A leading `$.` is allowed. A property whose own name has
dots, such as `git.author_email`, is named the same way. The rest of the record stays as it was sent. The client redacts
every record that it reads, so no other code has to.
"""

import json
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from sessions_pipeline.errors import SettingError
from sessions_pipeline.langsmith.records import Record
from sessions_pipeline.validation.json_text import split_array, split_members

PropertyPath = tuple[str, ...]
# Levels that are searched for a private property. Real data has fewer, and splitting deeply nested text is slow.
MOST_DEPTH = 50
# Without these a record could not be identified and put into a day.
NEEDED = {"id", "tenant_id", "start_time"}


def parse_paths(texts: Iterable[str]) -> tuple[PropertyPath, ...]:
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


def redact(record: Record, paths: Sequence[PropertyPath]) -> Record:
    """The record without the properties that the paths name; the same object if it has none of them.

    If a property occurs twice in an object, both are removed.
    """
    payload = record.payload
    for path in paths:
        # A quick search for the names spares most records the parsing. Escapes could hide a name from it.
        if "\\" in payload or all(name == "*" or name in payload for name in path):
            try:
                payload = _without(payload, path)
            except (ValueError, RecursionError):
                # The record will be rejected, and its text, which may hold private data, must not be stored with it.
                payload = json.dumps({"redacted": "the record could not be read"})
    return record if payload == record.payload else replace(record, payload=payload)


def _without(text: str, path: PropertyPath, depth: int = 0) -> str:
    if depth > MOST_DEPTH:
        raise ValueError("is nested too deeply")
    if text.startswith("["):
        items = split_array(text)
        redacted = [_without(item, path, depth + 1) for item in items]
        return text if redacted == items else f"[{','.join(redacted)}]"
    if not text.startswith("{"):
        return text
    sent = split_members(text)
    kept = [
        (name, _without(value, path[taken:], depth + 1) if taken else value)
        for name, value in sent
        if (taken := _taken(path, name)) < len(path)
    ]
    return text if kept == sent else "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in kept) + "}"


def _taken(path: PropertyPath, name: str) -> int:
    """How many parts of the path this property's name takes up; 0 if the path leads elsewhere."""
    parts = name.count(".") + 1
    return 1 if path[0] == "*" else parts if ".".join(path[:parts]) == name else 0
