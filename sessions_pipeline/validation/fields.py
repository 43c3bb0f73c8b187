"""What msgspec must read for a model of the schema: the model's fields, once more, for the fast path."""

from datetime import datetime
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin
from uuid import UUID

import msgspec
from pydantic import BaseModel

NOTHING = msgspec.Raw()


def base_type(annotation: Any) -> type:
    """The Python type of a model's field without None, metadata and parameters: `dict[str, Any] | None` is dict."""
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    origin = get_origin(annotation) or annotation
    if not isinstance(origin, type):
        raise TypeError(f"{annotation} is no type of a field")
    return origin


def field_types(model: type[BaseModel]) -> list[tuple[str, Any] | tuple[str, Any, Any]]:
    """The model's fields as `msgspec.defstruct` takes them, required ones first.

    Times, UUIDs and text are read as text. Costs and JSON are read as verbatim text, `NOTHING` where absent. What is
    absent is None, also where null is not allowed.
    """
    required: list[tuple[str, Any]] = []
    optional: list[tuple[str, Any, Any]] = []
    for name, field in model.model_fields.items():
        base = base_type(field.annotation)
        nullable = type(None) in get_args(field.annotation)
        kind = _READ_AS.get(base, msgspec.Raw)
        if field.is_required():
            required.append((name, dict[str, float] if base is dict else kind))
        elif kind is msgspec.Raw:
            optional.append((name, kind, NOTHING))
        else:
            optional.append((name, kind | None if nullable else kind, None))
    return [*required, *optional]


_READ_AS: dict[type, Any] = {UUID: str, datetime: str, str: str, int: int, float: float}
