"""A section of the suite -> the validated parameters of a plug-in, with errors in our own words.

The plug-in's pydantic model is the only source of what is valid. Values pass through it as strict
JSON, so that YAML's types are the types: the text "1" is no number and the number 1 is no text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ..params import Params
from ..types import Json, Places, Where
from ..words import did_you_mean, listed
from .sections import Section, written
from .yamltext import Node

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dataclass_type": "a mapping",
    "none_required": "nothing (null)",
    "greater_than": "a value above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "a value below {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "too_short": "at least {min_length} items",
    "too_long": "at most {max_length} items",
    "string_too_short": "a text of at least {min_length} characters",
    "string_too_long": "a text of at most {max_length} characters",
    "string_pattern_mismatch": "a text that matches {pattern}",
    "literal_error": "one of {expected}",
    "enum": "one of {expected}",
}
_TEXT_WANTED = ("string_type", "path_type")
_QUOTED = re.compile(r"'([^']*)'")


class _Place(NamedTuple):
    """What an error of pydantic speaks about; `node` is None where a key is missing."""

    where: Where
    path: str
    node: Node | None
    key: str


def read_params(
    section: Section, model: type[Params], common: Collection[str], places: Places
) -> Params | None:
    """The parameters in `section` beside the `common` keys; None if there was a problem (noted).

    Relative paths start from the folder of the file in which each value stands.
    """
    assert isinstance(section.node.value, Mapping)
    own = {key: node for key, node in section.node.value.items() if key not in common}
    bases = list(dict.fromkeys(node.base for node in own.values())) or [section.node.base]
    try:
        by_base = {base: _validated(model, own, base, places) for base in bases}
    except ValidationError as error:
        _explain(error, section, model, own, common)
        return None
    params = by_base[bases[0]]
    if len(bases) == 1:
        return params
    fields = {_key(model, name): name for name in model.model_fields}
    elsewhere = {
        fields[key]: getattr(by_base[node.base], fields[key])
        for key, node in own.items()
        if key in fields
    }
    return params.model_copy(update=elsewhere)


def resolved_entry(
    section: Section, params: Params, common: Collection[str], **defaults: Json
) -> dict[str, Json]:
    """An entry as JSON, defaults filled in, what the user wrote as it was written."""
    assert isinstance(section.node.value, Mapping)
    given = {
        key: written(node)
        for key, node in section.node.value.items()
        if node.value is not None or key not in common
    }
    dumped: dict[str, Json] = params.model_dump(mode="json")
    filled = {_key(type(params), name): value for name, value in dumped.items()}
    chosen = {key: value for key, value in defaults.items() if value is not None}
    return {**chosen, **filled, **given}


def _validated(model: type[Params], own: Mapping[str, Node], base: Path, places: Places) -> Params:
    context = {"base": base, "places": places}

    def validate(as_text: Collection[Where]) -> Params:
        values = {key: _plain(node, as_text) for key, node in own.items()}
        return model.model_validate_json(json.dumps(values), strict=True, context=context)

    try:
        return validate(())
    except ValidationError as error:
        # The environment holds only text: what looks like a number may be meant as text.
        texts = {
            node.where
            for each in error.errors(include_url=False)
            if each["type"] in _TEXT_WANTED
            and (node := _descend(own, each["loc"])) is not None
            and node.reference is not None
        }
        if not texts:
            raise
        return validate(texts)


def _plain(node: Node, as_text: Collection[Where]) -> Json:
    if isinstance(node.value, Mapping):
        return {key: _plain(value, as_text) for key, value in node.value.items()}
    if isinstance(node.value, tuple):
        return [_plain(item, as_text) for item in node.value]
    if node.where in as_text and node.reference is not None:
        return node.text
    return float(node.value) if isinstance(node.value, Fraction) else node.value


# ---------------------------------------------------------------- errors in our words


def _explain(
    error: ValidationError,
    section: Section,
    model: type[Params],
    own: Mapping[str, Node],
    common: Collection[str],
) -> None:
    groups: dict[str, list[tuple[_Place, ErrorDetails]]] = {}
    for each in error.errors(include_url=False):
        place = _place(section, each["loc"], each["type"])
        groups.setdefault(place.path, []).append((place, each))
    for path, members in groups.items():
        place, first = members[0]
        message, helps = _words(place, first, model, common)
        if len(members) > 1:  # one value against the alternatives of a union
            alternatives = dict.fromkeys(_expectation(each) for _, each in members)
            message, helps = f"expected {', or '.join(alternatives)}{_found(place)}", ()
        for node in own.values():
            message = _masked(message, node)
        section.problems.note(place.where, path, message, *helps)


def _words(
    place: _Place, error: ErrorDetails, model: type[Params], common: Collection[str]
) -> tuple[str, tuple[str, ...]]:
    kind = error["type"]
    top = len(error["loc"]) == 1
    if kind == "extra_forbidden":
        known = [*(_key(model, name) for name in model.model_fields), *common] if top else []
        helps = did_you_mean(place.key, known) or (
            (f"known keys: {listed(known)}",) if known else ()
        )
        return f"unknown key '{place.key}'", helps
    if kind == "missing":
        field = model.model_fields.get(place.key) if top else None
        about = field.description if field is not None else None
        return f"missing; {about or 'it has no default'}", ()
    if kind in ("literal_error", "enum") and place.node is not None:
        choices = _QUOTED.findall(str(error.get("ctx", {}).get("expected", "")))
        if choices:
            message = f"{place.node.shown} is not one of {listed(choices)}"
            return message, did_you_mean(place.node.text, choices)
    if kind in ("value_error", "assertion_error"):
        return str(error["ctx"]["error"]) if "ctx" in error else error["msg"], ()
    expectation = _expectation(error)
    quote = kind == "string_type" and place.node is not None and place.node.text
    helps = (f'for the text write "{place.node.text}"',) if quote and place.node else ()
    return f"expected {expectation}{_found(place)}", helps


def _expectation(error: ErrorDetails) -> str:
    if error["type"] in _EXPECTED:
        return _EXPECTED[error["type"]].format_map(error.get("ctx", {}))
    message = error["msg"].removeprefix("Input should be ")
    return message[:1].lower() + message[1:]


def _found(place: _Place) -> str:
    return "" if place.node is None else f", found {place.node.shown}"


def _place(section: Section, loc: tuple[int | str, ...], kind: str) -> _Place:
    node, path, key = section.node, section.path, ""
    where = node.where
    for part in loc:
        inner = _inside(node, part)
        if inner is None:
            continue  # pydantic puts the tags of unions among the keys
        assert isinstance(node.value, Mapping | tuple)
        where = node.keys[str(part)] if kind == "extra_forbidden" and node.keys else inner.where
        node, path, key = inner, f"{path}.{part}", str(part)
    if kind == "missing":
        name = str(loc[-1])
        return _Place(where, f"{path}.{name}", None, name)
    return _Place(where, path, None if node is section.node else node, key)


def _descend(own: Mapping[str, Node], loc: tuple[int | str, ...]) -> Node | None:
    node = own.get(str(loc[0])) if loc else None
    for part in loc[1:]:
        node = (_inside(node, part) or node) if node is not None else None
    return node


def _inside(node: Node, part: int | str) -> Node | None:
    if isinstance(node.value, Mapping):
        return node.value.get(str(part))
    if isinstance(node.value, tuple) and isinstance(part, int) and part < len(node.value):
        return node.value[part]
    return None


def _masked(message: str, node: Node) -> str:
    """The message without what came from the environment."""
    if isinstance(node.value, Mapping):
        inner = tuple(node.value.values())
    elif isinstance(node.value, tuple):
        inner = node.value
    else:
        secret = node.reference is not None and node.text
        return message.replace(node.text, str(node.reference)) if secret else message
    for each in inner:
        message = _masked(message, each)
    return message


def _key(model: type[Params], name: str) -> str:
    return model.model_fields[name].alias or name
