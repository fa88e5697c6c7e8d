"""The JSON Schema of record.json, made from the types: `make schema` writes it."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from benchrunner.core.files import json_schema, write_text
from benchrunner.core.paths import CHECKOUT
from benchrunner.core.record import SCHEMA_VERSION, Record

DEFAULT_PLACE = CHECKOUT / "docs" / "record.schema.json"

AS_YOU_LIKE = ("additionalProperties", True)


def record_schema() -> dict[str, Any]:
    """The schema as plain data: of what is written, that is, of a whole record without unknown fields."""
    made = _plain(json_schema(Record))
    properties = made["properties"] | {"schema_version": {"const": SCHEMA_VERSION}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "benchrunner record",
        "description": "One cell's verdict and what was measured; docs/metrics.md defines the metrics.",
        "type": "object",
        "properties": properties,
        "required": [field.name for field in dataclasses.fields(Record) if field.name != "repeat"],
        "additionalProperties": False,
        "allOf": [_reason_unless_ok()],
        "$defs": made["$defs"],
    }


def _plain(schema: Any) -> Any:
    """Without what says nothing (titles, defaults, `true`), and with numbers as JSON has them: 1 is one as 1.0 is."""
    if isinstance(schema, list):
        parts = [_plain(part) for part in schema]
        return [part for part in parts if part != {"type": "integer"}] if {"type": "number"} in parts else parts
    if not isinstance(schema, dict):
        return schema
    made = {key: _plain(part) for key, part in schema.items() if not _says_nothing(key, part)}
    return made["anyOf"][0] if len(made.get("anyOf", ())) == 1 else made


def _says_nothing(key: str, part: Any) -> bool:
    return (key == "title" and isinstance(part, str)) or key == "default" or (key, part) == AS_YOU_LIKE


def _reason_unless_ok() -> dict[str, Any]:
    """Whatever is not ok says why."""
    said = {"reason_code": {"type": "string", "minLength": 1}, "reason": {"type": "string", "minLength": 1}}
    return {"if": {"properties": {"status": {"const": "ok"}}}, "else": {"properties": said}}


def schema_text() -> str:
    """The schema file's content."""
    return json.dumps(record_schema(), indent=2) + "\n"


def main() -> None:
    """Write the schema to the path given, or to docs/ of the checkout."""
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_PLACE
    write_text(place, schema_text())


if __name__ == "__main__":
    main()
