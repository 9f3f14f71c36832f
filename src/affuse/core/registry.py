"""One registry: a part is a file, its card a literal in that file, read without importing it.

A part's configuration is the keyword parameters of the class or function that its card names as
`entry`: their names, annotations and defaults are the schema. Parts of one's own lie in folders that the environment
variable AFFUSE_PARTS names, below the same folders as here (FOLDER/fusions/mine.py), and are used like any other.
"""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from affuse.core.errors import BadConfig, MissingDependency, UnknownName

KINDS: dict[str, str] = {
    "corpora": "corpora",
    "extractors": "features",
    "encoders": "models/encoders",
    "fusions": "models/fusions",
    "contexts": "models/contexts",
    "objectives": "objectives",
    "balancers": "balance",
    "metrics": "metrics",
    "writers": "reporting/writers",
}
_ROOT = Path(__file__).resolve().parent.parent
OWN = "AFFUSE_PARTS"


@lru_cache
def cards(kind: str) -> dict[str, dict[str, Any]]:
    """Name -> card of every part of `kind`, read from the files' literals (imports nothing)."""
    found = {name: _read_card(path) for name, path in sorted(files(kind).items())}
    return {name: {"name": name, **card} for name, card in found.items() if card}


def files(kind: str) -> dict[str, Path]:
    """Name -> file of everything in the folders of a kind: affuse's own, and those that AFFUSE_PARTS names.

    Raises BadConfig for a file of one's own that is called like one of affuse.
    """
    if kind not in KINDS:
        raise UnknownName.among("kind", kind, KINDS)
    found = {path.stem: path for path in (_ROOT / KINDS[kind]).glob("*.py")}
    for folder in filter(None, os.environ.get(OWN, "").split(os.pathsep)):
        for path in (Path(folder) / kind).glob("*.py"):
            if path.stem in found:
                raise BadConfig(f"{path} is called like a part that is there already", "give the file another name")
            found[path.stem] = path
    return found


def _read_card(path: Path) -> dict[str, Any] | None:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "CARD":
            return dict(ast.literal_eval(node.value))
    return None


def available(card: Mapping[str, Any]) -> bool:
    """Whether the packages of the extra that the part needs are installed."""
    return all(find_spec(package) is not None for package in card.get("packages", ()))


def load(kind: str, name: str) -> Callable[..., Any]:
    """The part's class or function; its file is imported now.

    Raises UnknownName with the closest names, MissingDependency with the extra that installs it.
    """
    known = cards(kind)
    if name not in known:
        raise UnknownName.among(kind.removesuffix("s"), name, known)
    card = known[name]
    if not available(card):
        raise MissingDependency(
            f"'{name}' needs {', '.join(card['packages'])}", f"pip install 'affuse[{card['extra']}]'"
        )
    return typing.cast("Callable[..., Any]", getattr(_module(kind, name), card["entry"]))


def _module(kind: str, name: str) -> types.ModuleType:
    """The module of a part; one of one's own is imported under a name that no package has."""
    path = files(kind)[name]
    if path.is_relative_to(_ROOT):
        return importlib.import_module(f"affuse.{KINDS[kind].replace('/', '.')}.{name}")
    own = f"affuse_parts_{kind}_{name}"
    if own not in sys.modules:
        loader = importlib.machinery.SourceFileLoader(own, str(path))
        module = types.ModuleType(own)
        module.__file__, sys.modules[own] = str(path), module
        loader.exec_module(module)
    return sys.modules[own]


def schema(entry: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Keyword-only parameters of a part as {name: (annotation, default)}."""
    function = entry.__init__ if inspect.isclass(entry) else entry  # type: ignore[misc]
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    return {p.name: (hints.get(p.name, Any), p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}


def resolve(kind: str, name: str, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """All parameters of a part: `given` checked and converted, the rest at their defaults.

    `where` is the dotted key for messages. Raises UnknownName (closest keys) or BadConfig (wrong type).
    """
    fields = schema(load(kind, name))
    for key in given:
        if key not in fields:
            raise UnknownName.among("option", f"{where}.{key}", [f"{where}.{f}" for f in fields])
    values = {}
    for key, (annotation, default) in fields.items():
        if key not in given and default is inspect.Parameter.empty:
            raise BadConfig(f"{where}.{key} has no value", f"add {where}.{key}=VALUE")
        values[key] = convert(given[key], annotation, f"{where}.{key}") if key in given else default
    return values


def build(kind: str, name: str, /, *args: Any, **parameters: Any) -> Any:
    """Make a part from the positional arguments of its kind and its own parameters; BadConfig where that fails."""
    entry = load(kind, name)
    try:
        return entry(*args, **parameters)
    except (ValueError, ArithmeticError, RuntimeError) as error:  # of torch: a size below 0, a share above 1
        given = ", ".join(f"{k}={v}" for k, v in parameters.items())
        raise BadConfig(
            f"{kind.removesuffix('s')} '{name}' cannot be made: {error}", f"change one of {given}"
        ) from error


def convert(value: Any, annotation: Any, where: str) -> Any:
    """`value` as `annotation` (bool, int, float, str, Literal, list, tuple, dict, unions); BadConfig otherwise."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, args, where)
    if origin is typing.Literal:
        if isinstance(value, bool) and value not in args:  # YAML reads on and off as booleans
            value = "on" if value else "off"
        if value in args:
            return value
        raise UnknownName.among(f"value of {where}:", str(value), [str(a) for a in args])
    if origin in (list, tuple) and isinstance(value, list | tuple):
        inner = args[0] if args else Any
        return origin(convert(v, inner, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {k: convert(v, args[1] if args else Any, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, str) and annotation in _WRITTEN:
        return _from_text(value, annotation, where)
    if annotation is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(annotation, type) and isinstance(value, annotation) and (annotation is bool) == (type(value) is bool):
        return value
    wanted = getattr(annotation, "__name__", str(annotation))
    raise BadConfig(f"{where} = {value!r} is not a {wanted}", f"give {where} a {wanted}")


_WRITTEN: dict[Any, Callable[[str], Any]] = {
    Path: Path,
    int: int,
    float: float,
    bool: lambda text: {"true": True, "yes": True, "false": False, "no": False}[text.lower()],
}


def _from_text(value: str, annotation: Any, where: str) -> Any:
    """A value as it was typed."""
    try:
        return _WRITTEN[annotation](value)
    except (ValueError, KeyError) as error:
        raise BadConfig(
            f"{where} = {value!r} is not a {annotation.__name__}", f"give {where} a {annotation.__name__}"
        ) from error


def _convert_union(value: Any, args: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in args:
        return None
    errors: list[Exception] = []
    for option in (a for a in args if a is not type(None)):
        try:
            return convert(value, option, where)
        except (BadConfig, UnknownName) as error:
            errors.append(error)
    raise errors[0]
