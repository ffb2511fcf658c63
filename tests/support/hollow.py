"""Finds checks in tests that may have nothing to check: loops, `all` and `not any` over what may be empty.

It reads the syntax only. An iterable counts as never empty if it is a literal with elements, a constant by its name, made
from such ones, compared with something in an assertion of the same test, or passed through `tests.support.checks.some`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

Function = ast.FunctionDef | ast.AsyncFunctionDef
_KEEP_LENGTH = {"enumerate", "sorted", "reversed", "list", "tuple", "set", "iter", "frozenset"}
_METHODS_KEEP_LENGTH = {"items", "values", "keys", "split", "splitlines"}


@dataclass(frozen=True, slots=True)
class Hollow:
    """A check that may look at nothing."""

    line: int
    iterable: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.iterable} may be empty: then nothing is checked. Pass it through `some`"


def find(source: str) -> list[Hollow]:
    """Return what is hollow in the test functions of a module, in order."""
    tree = ast.parse(source)
    constants = _names_of_literals(tree.body, set())
    return [
        Hollow(iterable.lineno, ast.unparse(iterable))
        for function in ast.walk(tree)
        if isinstance(function, Function) and function.name.startswith("test_")
        for iterable in _of_function(function, constants)
    ]


def _of_function(function: Function, constants: set[str]) -> Iterator[ast.expr]:
    known = _names_of_literals(function.body, constants)
    for node in ast.walk(function):
        if isinstance(node, ast.For) and _checks(node.body) and not _never_empty(node.iter, known):
            yield node.iter
        if isinstance(node, ast.Assert):
            for part in ast.walk(node.test):
                called, name = (part.operand, "any") if isinstance(part, ast.UnaryOp) else (part, "all")
                if isinstance(called, ast.Call) and isinstance(called.func, ast.Name) and called.func.id == name:
                    (argument,) = called.args
                    if not _never_empty(argument, known):
                        yield argument


def _checks(body: list[ast.stmt]) -> bool:
    """Tell whether the statements check something."""
    return any(
        isinstance(node, ast.Assert) or (isinstance(node, ast.withitem) and "raises" in ast.unparse(node.context_expr))
        for statement in body
        for node in ast.walk(statement)
    )


def _names_of_literals(body: list[ast.stmt], known: set[str]) -> set[str]:
    """Return `known` and the names that some statement gives a value that is not empty, or compares with one."""
    known = set(known)
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    known |= _named(target, node.value, known)
            elif isinstance(node, ast.AnnAssign) and node.value is not None:
                known |= _named(node.target, node.value, known)
            elif isinstance(node, ast.Assert):
                known |= _asserted(node.test)
    return known


def _named(target: ast.expr, value: ast.expr, known: set[str]) -> set[str]:
    if isinstance(target, ast.Name):
        return {target.id} if _never_empty(value, known) else set()
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return set().union(*(_named(*pair, known) for pair in zip(target.elts, value.elts, strict=False)))
    return set()


def _asserted(test: ast.expr) -> set[str]:
    """Return the names that cannot be empty where the assertion holds, as far as can be told by looking."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return set().union(*map(_asserted, test.values))
    if isinstance(test, ast.Name):
        return {test.id}
    if not isinstance(test, ast.Compare) or not isinstance(test.ops[0], ast.Eq | ast.Gt | ast.GtE):
        return set()
    sides = [test.left, *test.comparators]
    for side in sides.copy():
        if isinstance(side, ast.Tuple):
            sides += side.elts
    names = [side.args[0] if isinstance(side, ast.Call) and _name(side) == "len" else side for side in sides]
    return {name.id for name in names if isinstance(name, ast.Name)}


def _name(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _never_empty(node: ast.expr, known: set[str]) -> bool:
    match node:
        case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
            return any(not isinstance(one, ast.Starred) or _never_empty(one.value, known) for one in elements)
        case ast.Dict(keys=keys):
            return bool(keys)
        case ast.Constant(value=value):
            return isinstance(value, str | bytes) and bool(value)
        case ast.Name(id=name):
            # Constants and enumerations are by convention what their names say.
            return name in known or name.isupper() or name[:1].isupper()
        case ast.Attribute(attr=name):
            return name.isupper() or name[:1].isupper()
        case ast.Subscript(value=ast.Dict(values=values)):
            return all(_never_empty(one, known) for one in values)
        case ast.BinOp(left=left, op=ast.Add() | ast.BitOr() | ast.Mult(), right=right):
            return _never_empty(left, known) or _never_empty(right, known)
        case ast.ListComp() | ast.GeneratorExp() | ast.SetComp() | ast.DictComp():
            return all(_never_empty(part.iter, known) and not part.ifs for part in node.generators)
        case ast.Call():
            return _call_never_empty(node, known)
    return False


def _call_never_empty(call: ast.Call, known: set[str]) -> bool:
    name = _name(call)
    if name == "some":
        return True
    if name in _METHODS_KEEP_LENGTH and isinstance(call.func, ast.Attribute):
        return _never_empty(call.func.value, known)
    if name in _KEEP_LENGTH and call.args:
        return _never_empty(call.args[0], known)
    if name == "range":
        values = [each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, int)]
        if len(values) == len(call.args):
            return len(range(*values)) > 0
        return isinstance(call.args[-1], ast.Name) and _never_empty(call.args[-1], known)
    if name in ("zip", "product"):
        strict = any(word.arg == "strict" and ast.unparse(word.value) == "True" for word in call.keywords)
        return (any if strict else all)(_never_empty(each, known) for each in call.args)
    return False
