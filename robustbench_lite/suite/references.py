"""`${name}`, `${env:NAME}` and `${env:NAME:-default}` in a tree -> the values they stand for.

`${name[other]}` is the entry of the mapping `name` that the variable `other` names: a profile. A
whole-value reference keeps the type of what it names; inside a text it is woven in as text. What
came from the environment keeps its reference beside it, and that is what may be shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from ..types import Where
from ..words import Problem, did_you_mean, listed
from .yamltext import MAX_ALIASED, Node, remapped, scalar

MAX_TEXT = 100_000
_REFERENCE = re.compile(r"\$\{([^{}]*)\}")
_CHOICE = re.compile(r"([^\[\]]+)\[([^\[\]]+)\]")


class References:
    """Resolves `${name}`, `${env:NAME}` and `${env:NAME:-default}` against `vars` and `env`."""

    def __init__(self, root: Node, env: Mapping[str, str]) -> None:
        assert isinstance(root.value, Mapping)
        variables = root.value.get("vars")
        found = None if variables is None else variables.value
        self.vars = found if isinstance(found, Mapping) else {}
        self.root = root
        self.env = env
        self.known: dict[str, Node | None] = {}
        self.added = 0
        self.problems: list[Problem] = []
        self.unresolved: set[Where] = set()

    def everywhere(self) -> Node:
        """The tree with every reference resolved; one that cannot be stays as it is."""
        assert isinstance(self.root.value, Mapping)
        values = {
            key: self.node(value, key, ())
            for key, value in self.root.value.items()
            if key != "vars"
        }
        if "vars" in self.root.value:
            own = {name: self.variable(name, ()) or node for name, node in self.vars.items()}
            variables = self.root.value["vars"]
            values["vars"] = remapped(variables, own, variables.keys) if own else variables
        return remapped(self.root, values, self.root.keys)

    def node(self, node: Node, path: str, chain: tuple[str, ...]) -> Node:
        """The node with the references in it resolved; `chain`: the variables being resolved."""
        if isinstance(node.value, Mapping):
            values = {
                key: self.node(value, f"{path}.{key}", chain) for key, value in node.value.items()
            }
            # an entry that a profile leaves out: its reference stands for nothing
            kept = {
                key: value
                for key, value in values.items()
                if value.value is not None or node.value[key].value is None
            }
            return remapped(node, kept, node.keys)
        if isinstance(node.value, tuple):
            looked = [self.node(item, f"{path}.{at}", chain) for at, item in enumerate(node.value)]
            items = tuple(
                item
                for item, written in zip(looked, node.value, strict=True)
                if item.value is not None or written.value is None
            )
            return replace(node, value=items, size=1 + sum(item.size for item in items))
        if not isinstance(node.value, str) or "${" not in node.value:
            return node
        whole = _REFERENCE.fullmatch(node.value)
        if whole is not None:
            found = self.look_up(whole[1], node, path, chain)
            if found is None:
                self.unresolved.add(node.where)
            return found or node
        return self.woven(node, path, chain)

    def woven(self, node: Node, path: str, chain: tuple[str, ...]) -> Node:
        """A text with references inside it."""
        text, shown, last = "", "", 0
        for match in _REFERENCE.finditer(node.text):
            piece = self.look_up(match[1], node, path, chain)
            if piece is None:
                self.unresolved.add(node.where)
                return node
            if isinstance(piece.value, tuple | Mapping) or piece.value is None:
                self.note(
                    node, path, f"'{match[0]}' is {piece.shown}: it cannot stand inside a text"
                )
                return node
            before = node.text[last : match.start()]
            text += before + piece.text
            shown += before + (piece.text if piece.reference is None else piece.reference)
            last = match.end()
            if len(text) > MAX_TEXT:
                self.note(node, path, f"the text grows longer than {MAX_TEXT} characters")
                return node
        text, shown = text + node.text[last:], shown + node.text[last:]
        return replace(node, value=text, text=text, reference=None if shown == text else shown)

    def look_up(self, name: str, node: Node, path: str, chain: tuple[str, ...]) -> Node | None:
        """The value of one reference; None (and a problem) if it has none."""
        if name.startswith("env:"):
            return self.from_environment(name.removeprefix("env:"), node, path)
        choice = _CHOICE.fullmatch(name)
        if choice is not None:
            return self.chosen(choice[1], choice[2], node, path, chain)
        if name not in self.vars:
            helps = did_you_mean(name, self.vars) or (f"vars: {listed(self.vars)}",)
            self.note(node, path, f"unknown variable '{name}'", helps)
            return None
        if name in chain:
            cycle = " -> ".join((*chain[chain.index(name) :], name))
            self.note(node, path, f"variable '{name}' refers to itself: {cycle}")
            return None
        value = self.variable(name, chain)
        self.added += 0 if value is None else value.size
        if self.added > MAX_ALIASED:
            self.note(node, path, f"references repeat more than {MAX_ALIASED} values")
            return None
        return value

    def chosen(
        self, name: str, by: str, node: Node, path: str, chain: tuple[str, ...]
    ) -> Node | None:
        """The entry of the mapping `name` that the variable `by` names."""
        table, key = (self.look_up(each, node, path, chain) for each in (name, by))
        if table is None or key is None:
            return None
        if not isinstance(table.value, Mapping):
            self.note(node, path, f"'{name}' is {table.shown}; expected a mapping to choose from")
            return None
        if key.text not in table.value:
            helps = did_you_mean(key.text, table.value) or (f"there are: {listed(table.value)}",)
            self.note(node, path, f"'{name}' has no entry '{key.text}', the value of {by}", helps)
            return None
        return table.value[key.text]

    def variable(self, name: str, chain: tuple[str, ...]) -> Node | None:
        """The resolved value of a variable; None if something in it could not be resolved."""
        if name not in self.known:
            before = len(self.problems)
            found = self.node(self.vars[name], f"vars.{name}", (*chain, name))
            self.known[name] = found if len(self.problems) == before else None
        return self.known[name]

    def from_environment(self, name: str, node: Node, path: str) -> Node | None:
        """A variable of the environment, typed like a plain scalar, remembered by its name."""
        name, dash, default = name.partition(":-")
        text = self.env.get(name) or (default if dash else self.env.get(name))
        if text is None:
            helps = (f"set it, or give a default: ${{env:{name}:-default}}",)
            self.note(node, path, f"environment variable {name} is not set", helps)
            return None
        whole = _REFERENCE.fullmatch(node.text)
        reference = node.text if whole else f"${{env:{name}{dash}{default}}}"
        return replace(node, value=scalar(text), text=text, reference=reference)

    def note(self, node: Node, path: str, message: str, helps: tuple[str, ...] = ()) -> None:
        """Remember a problem at a node."""
        self.problems.append(Problem(where=node.where, path=path, message=message, helps=helps))
