"""The JSON Schema (draft-07) of suites, built from the plug-ins installed, for editors and checks.

It knows every key, type and name; `robeval validate` knows also what only the whole suite tells. A
number may be a fraction text (`8/255`) and any scalar a reference (`${name}`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..catalogue import FINDINGS
from ..contract import COMMON_KEYS, SpecKind
from ..hookspecs import AttackSpec, Spec
from ..metrics import AXES, DISTANCE, METRICS
from ..params import Params
from ..plugins import Registered, Registry
from ..types import THREATS
from .attacks import IDENTITY, TARGETS
from .sections import KEYS, SCHEMA
from .waivers import WAIVER_KEYS

Schema = dict[str, Any]  # JSON Schema is a language of its own; pydantic types it so too

_FRACTION = {"type": "string", "pattern": r"^\+?[.0-9eE]+ */ *\+?[.0-9eE]+$|\$\{"}
_EPS = {"anyOf": [{"type": "number", "minimum": 0}, _FRACTION]}
_REFERENCE = {"type": "string", "pattern": r"\$\{"}
_NAME = {"minLength": 1, "maxLength": 100, "pattern": "^[^/]+$"}
_SHA256 = {"type": "string", "pattern": "^(sha256:)?[0-9a-fA-F]{64}$"}


def json_schema(registry: Registry) -> Schema:
    """The schema of a suite with the plug-ins of `registry`, as plain JSON."""
    definitions: Schema = {}
    entries = {
        "models": _entry("model", registry.models, definitions),
        "datasets": _entry("dataset", registry.datasets, definitions),
        "attacks": _entry("attack", registry.attacks, definitions),
        "analyses": _entry("analysis", registry.analyses, definitions),
    }
    top = {
        "schema": {"const": SCHEMA, "description": "version of the language of suites"},
        "name": {"type": "string", **_NAME},
        "extends": _one_or_many({"type": "string"}),
        "vars": {"type": "object", "description": "values for ${name}"},
        "python_path": _one_or_many({"type": "string"}),
        "seed": _or_reference({"type": "integer", "minimum": 0}),
        "evaluate": {"type": "array", "minItems": 1, "items": _or_reference(_evaluation())},
        "gates": _named(_gate()),
        "reports": _one_or_many(_or_reference({"enum": list(registry.reporters)})),
        "controls": _or_reference({"enum": ["auto", "off"]}),
        "self_test": _or_reference({"enum": ["auto", "off"]}),
        "waivers": _named(_waiver()),
        **{key: _named(entry) for key, entry in entries.items()},
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "robeval suite",
        "type": "object",
        "properties": {key: top[key] for key in KEYS},
        "additionalProperties": False,
        "if": {"required": ["extends"]},
        "then": {},
        "else": _complete(),
        "definitions": definitions,
    }


def _complete() -> Schema:
    """What a suite that extends no other must have by itself."""
    needs = {"models": "load", "datasets": "load", "attacks": "attack", "analyses": "analysis"}
    return {
        "required": ["schema", "models", "datasets"],
        "properties": {
            section: {"additionalProperties": {"required": [key]}} for section, key in needs.items()
        },
    }


def _entry(kind: SpecKind, table: Mapping[str, Registered[Spec]], definitions: Schema) -> Schema:
    """An entry: its first key names the plug-in, and the plug-in names the other keys."""
    key = COMMON_KEYS[kind][0]
    cases = []
    for name, registered in table.items():
        title = _title(kind, name)
        definitions[title] = _plugin(kind, registered.spec, definitions)
        test = {"required": [key], "properties": {key: {"const": name}}}
        cases.append({"if": test, "then": {"$ref": f"#/definitions/{title}"}})
    first: Schema = {"enum": list(table), "description": f"the {kind} plug-in to use"}
    entry: Schema = {"type": "object", "properties": {key: _or_reference(first)}}
    return {**entry, "allOf": cases} if cases else entry


def _title(kind: SpecKind, name: str) -> str:
    return f"{kind}.{name.replace('/', ':')}"  # a slash would be a step in `$ref`


def _plugin(kind: SpecKind, spec: Spec, definitions: Schema) -> Schema:
    params: type[Params] = getattr(spec, "params", Params)
    title = _title(kind, spec.name)
    own = params.model_json_schema(ref_template=f"#/definitions/{title}.{{model}}")
    for name, inner in own.get("$defs", {}).items():
        definitions[f"{title}.{name}"] = _draft07(inner)
    properties = {key: _draft07(value) for key, value in own.get("properties", {}).items()}
    required = list(own.get("required", ()))
    if isinstance(spec, AttackSpec) and spec.default_eps is None:
        required.append("eps")
    return {
        "description": spec.summary,
        "properties": {**_common(kind, spec), **properties},
        "additionalProperties": False,
        "required": required,
    }


def _common(kind: SpecKind, spec: Spec) -> Schema:
    whole: Schema = {"type": "integer", "minimum": 0}
    norms = list(spec.norms) if isinstance(spec, AttackSpec) else list(THREATS)
    known: Schema = {
        "sha256": _SHA256,
        "take": {"type": "integer", "minimum": 1},
        "skip": whole,
        "indices": _one_or_many(whole),
        "stratified": {"type": "boolean"},
        "seed": whole,
        "classes": _one_or_many({"type": ["string", "integer"]}),
        "norm": {"enum": norms},
        "eps": _one_or_many(_EPS),
        "source": _one_or_many({"type": "string"}),
        "eot": {"type": "integer", "minimum": 1},
        "time_limit": {"type": ["number", "string"]},
        "bpda": {"type": "object", "additionalProperties": {"const": IDENTITY}},
        "target": {"anyOf": [{"enum": list(TARGETS)}, whole]},
        "repeats": {"type": "integer", "minimum": 1},
        "fallback": {"type": "string"},
    }
    keys = COMMON_KEYS[kind]
    return {keys[0]: {"const": spec.name}, **{key: _or_reference(known[key]) for key in keys[1:]}}


def _evaluation() -> Schema:
    text = {"type": "string"}
    return {
        "type": "object",
        "properties": {"model": text, "dataset": text, "attacks": _one_or_many(text)},
        "required": ["model", "dataset"],
        "additionalProperties": False,
    }


def _gate() -> Schema:
    share = {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, _FRACTION]}
    text = {"type": "string"}
    flag = _or_reference({"type": "boolean"})
    return {
        "type": "object",
        "properties": {
            "metric": _or_reference({"enum": list(METRICS)}),
            "analysis": text,
            "model": text,
            "dataset": text,
            "attack": text,
            "norm": _or_reference({"enum": list(THREATS)}),
            "eps": _EPS,
            "min": _EPS,
            "max": _EPS,
            "max_drop": share,
            "baseline": {**text, "minLength": 1},
            "confidence": share,
            "for_each": _one_or_many(_or_reference({"enum": list(AXES)})),
            "per_class": flag,
            "min_samples": _or_reference({"type": "integer", "minimum": 1}),
            "allow_partial": flag,
            "sequential": flag,
        },
        "additionalProperties": False,
        "dependencies": {
            "baseline": ["max_drop"],
            "max_drop": {"properties": {"min": False, "max": False}},
        },
        "if": {"required": ["metric"], "properties": {"metric": {"const": DISTANCE}}},
        "then": {},
        "else": {"properties": {"min": share, "max": share}},
    }


def _waiver() -> Schema:
    text = {"type": "string", "minLength": 1}
    known = _or_reference({"enum": list(FINDINGS)})
    return {
        "type": "object",
        "properties": {**dict.fromkeys(WAIVER_KEYS, text), "finding": known},
        "required": list(WAIVER_KEYS),
        "additionalProperties": False,
    }


def _named(entry: Schema) -> Schema:
    return {"type": "object", "propertyNames": _NAME, "additionalProperties": _or_reference(entry)}


def _one_or_many(item: Schema) -> Schema:
    return {"anyOf": [item, {"type": "array", "items": item}]}


def _or_reference(schema: Schema) -> Schema:
    return {"anyOf": [schema, _REFERENCE]}


def _draft07(schema: Any) -> Any:
    """A schema of pydantic in draft-07; numbers may be fractions and any value a reference."""
    if isinstance(schema, list):
        return [_draft07(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {"default", "const", "enum", "examples", "required"}
    result = {key: value if key in plain else _draft07(value) for key, value in schema.items()}
    if "prefixItems" in result:  # draft-07 has a list under `items`
        rest = result.pop("items", False)
        result["items"] = result.pop("prefixItems")
        result["additionalItems"] = rest
    if result.get("type") == "number":
        return {"anyOf": [result, _FRACTION]}
    if (
        result.get("type") in ("integer", "boolean", "array", "object")
        or "enum" in result
        or "const" in result
    ):
        return _or_reference(result)
    return result
