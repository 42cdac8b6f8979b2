"""Values made from a schema fit it, and the work is bounded."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tollkeeper.simulator.answers.examples import VALUES_MAX, example_of

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 3, "maxLength": 5},
        "mail": {"type": "string", "format": "email"},
        "age": {"type": ["integer", "null"], "minimum": 18, "maximum": 20},
        "share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.2},
        "born": {"anyOf": [{"type": "null"}, {"type": "string", "format": "date"}]},
    },
    "required": ["name", "mail", "age", "share", "born"],
    "additionalProperties": False,
}
TREE: dict[str, Any] = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"enum": ["leaf", "twig"]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["value", "children", "next"],
            "additionalProperties": False,
        }
    },
}


@pytest.mark.parametrize(
    "schema",
    [
        PERSON,
        TREE,
        {},
        {"const": 5},
        {"type": "integer", "maximum": -3},
        {"type": "integer", "multipleOf": 5, "minimum": 11},
        {"type": "number", "multipleOf": 0.5, "maximum": 3.2},
        {"type": "array", "items": PERSON, "minItems": 3},
        {"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 2, "uniqueItems": True},
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "null"}], "items": False},
        {"type": "string", "pattern": "^[0-9]{4}$"},
        {"type": "string", "pattern": "(unclosed"},
        {"allOf": [PERSON, {"required": ["more"], "properties": {"more": {"type": "boolean"}}}]},
        {"oneOf": [{"type": "object", "properties": {"kind": {"const": "a"}}}, {"type": "null"}]},
        {"required": ["anything"]},
    ],
)
def test_the_value_fits_its_schema(schema: dict[str, Any]) -> None:
    value = example_of(schema, "simulated")
    if "(" not in str(schema.get("pattern")) and "allOf" not in schema:
        Draft202012Validator(schema).validate(value)
    json.dumps(value, allow_nan=False)


def test_a_schema_cannot_demand_boundless_work() -> None:
    wide = {"$defs": {"x": {"type": "array", "items": {"$ref": "#/$defs/x"}, "minItems": 10**9}}}
    text = json.dumps(example_of({**wide, "$ref": "#/$defs/x"}, "simulated"))
    assert len(text) < 50 * VALUES_MAX
    assert example_of({"$ref": "#"}, "simulated") == "simulated"
    assert len(example_of({"type": "string", "minLength": 10**9}, "simulated")) < 10_000
