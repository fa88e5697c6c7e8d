"""The JSON Schema of record.json, generated from the dataclass: `make schema` writes it."""

import dataclasses
import json
import sys
import types
import typing
from pathlib import Path
from typing import Any

from benchrunner.core.files import write_text
from benchrunner.core.paths import CHECKOUT
from benchrunner.core.record import SCHEMA_VERSION, STATUSES, Record

DEFAULT_PLACE = CHECKOUT / "docs" / "record.schema.json"

_NAMES: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Any: {},
}


def record_schema() -> dict[str, Any]:
    """The schema as plain data."""
    hints = typing.get_type_hints(Record)
    fields = dataclasses.fields(Record)
    properties = {field.name: schema_of(hints[field.name]) for field in fields}
    properties["schema_version"] = {"const": SCHEMA_VERSION}
    properties["status"] = {"enum": list(STATUSES)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "benchrunner record",
        "description": "One cell's verdict and what was measured; docs/metrics.md defines the metrics.",
        "type": "object",
        "properties": properties,
        "required": [field.name for field in fields],
        "additionalProperties": False,
        "allOf": [_reason_unless_ok()],
    }


def _reason_unless_ok() -> dict[str, Any]:
    """Whatever is not ok says why."""
    said = {"reason_code": {"type": "string", "minLength": 1}, "reason": {"type": "string", "minLength": 1}}
    return {"if": {"properties": {"status": {"const": "ok"}}}, "else": {"properties": said}}


def schema_of(kind: Any) -> dict[str, Any]:
    """The schema of a type annotation."""
    if kind in _NAMES:
        return _NAMES[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [schema_of(part) for part in arguments]}
    if origin is list:
        return {"type": "array", "items": schema_of(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    raise TypeError(f"no schema for {kind}")


def schema_text() -> str:
    """The schema file's content."""
    return json.dumps(record_schema(), indent=2) + "\n"


def main() -> None:
    """Write the schema to the path given, or to docs/ of the checkout."""
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_PLACE
    write_text(place, schema_text())


if __name__ == "__main__":
    main()
