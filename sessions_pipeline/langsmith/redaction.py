"""Private fields, taken out of a record before anything is written. Pure.

A path names properties from the record's top, separated by dots, `*` for any: `extra.metadata.git.author_email`,
`feedback_stats.*.values`. A leading `$.` is allowed. Everything else of the record stays as it was sent.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from sessions_pipeline.errors import SettingError
from sessions_pipeline.validation.records import Record

Path = tuple[str, ...]
# The record's place and identity: without them it could not be stored.
NEEDED = {"id", "tenant_id", "start_time"}
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])


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
    """The record without the properties that the paths name; the same record if it has none of them."""
    payload = record.payload
    for path in paths:
        payload = _without(payload, path)
    return record if payload is record.payload else record._replace(payload=payload)


def _without(text: str, path: Path) -> str:
    if not text.startswith(("{", "[")):
        return text
    try:
        return _spliced(text, path)
    except (msgspec.DecodeError, RecursionError):
        # NaN, lone surrogates: the record will be rejected, but what is private must not be kept with it.
        return _loosely(text, path)


def _spliced(text: str, path: Path) -> str:
    if text.startswith("["):
        items = [bytes(item).decode() for item in _ARRAY.decode(text)]
        cut = [_without(item, path) for item in items]
        return text if cut == items else f"[{','.join(cut)}]"
    if not text.startswith("{"):
        return text
    fields = {name: bytes(value).decode() for name, value in _OBJECT.decode(text).items()}
    kept = {}
    for name, value in fields.items():
        if path[0] not in ("*", name):
            kept[name] = value
        elif len(path) > 1:
            kept[name] = _without(value, path[1:])
    return text if kept == fields else "{" + ",".join(f"{json.dumps(k)}:{v}" for k, v in kept.items()) + "}"


def _loosely(text: str, path: Path) -> str:
    try:
        return json.dumps(_pruned(json.loads(text), path))
    except (ValueError, RecursionError):
        return json.dumps({"redacted": "the record could not be read"})


def _pruned(value: Any, path: Path) -> Any:
    if isinstance(value, list):
        return [_pruned(item, path) for item in value]
    if not isinstance(value, dict):
        return value
    matched = {name for name in value if path[0] in ("*", name)}
    kept = {name: item for name, item in value.items() if name not in matched}
    return kept | {name: _pruned(value[name], path[1:]) for name in matched if len(path) > 1}
