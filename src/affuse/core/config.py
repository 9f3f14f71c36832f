"""Recipes: dataclasses filled from a YAML file, then from `dotted.key=value` overrides.

A part (encoder, fusion, context, objective) is written `name` or `{name: ..., option: value}`; its options
are checked against the part's own parameters by the registry. The resolved recipe is plain YAML again.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from affuse.core import registry
from affuse.core.errors import BadConfig, MissingFile, UnknownName

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
PRETRAINED = Path(__file__).resolve().parent.parent / "pretrained"
GROUPS = "speaker+source"  # what never crosses a split unless a user asks for it
Part = dict[str, Any]
Parts = list[dict[str, Any]]


@dataclass
class TaskConfig:
    """What is predicted: the manifest column and its label space (inferred from the corpus where empty).

    `refine`: a column (intensity, say) whose values part every class into finer ones while training; answers add
    their probabilities up again.
    """

    column: str = "label"
    space: str = ""
    refine: str = ""


@dataclass
class StreamConfig:
    """One input: the encoder, and the extractor's options (the stream's name is the extractor's, unless they name one).

    `rate`: steps per second at which the store is read, by `how` (0: as it was made). `init`: a run whose encoder of the same
    modality this one starts from; `frozen`: it then stays as it is. `lr` multiplies optim.lr for the encoder.
    `standardise_by`: a manifest column, such as speaker, by whose groups the stored values are standardised (see
    `features.groups`).
    """

    encoder: Part
    extractor: Part = field(default_factory=dict)
    init: str = ""
    frozen: bool = False
    lr: float = 1.0
    rate: float = 0.0
    how: Literal["mean", "nearest"] = "mean"
    standardise_by: str = ""


@dataclass
class SplitConfig:
    """How utterances are parted; what shares a value of `group_by`, a column or several joined by +, is never parted."""

    group_by: str = GROUPS
    valid: float = 0.15
    test: float = 0.2
    seed: int = 0


@dataclass
class OptimConfig:
    """AdamW with decoupled weight decay, or SGD with `momentum` (biases and norms are not decayed); a schedule per step."""

    name: typing.Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    lr: float = 1e-3
    weight_decay: float = 0.01
    schedule: typing.Literal["cosine", "one_cycle", "constant"] = "cosine"
    warmup: float = 0.05
    clip: float = 1.0


@dataclass
class AugmentConfig:
    """What is done to training batches only; probabilities are per utterance, `words` is the share of token ids that are hidden."""

    modality_dropout: float = 0.0
    mixup: float = 0.0
    mixup_probability: float = 1.0
    noise: float = 0.0
    noise_snr: list[float] = field(default_factory=lambda: [5.0, 30.0])
    speed: float = 0.0
    speed_range: list[float] = field(default_factory=lambda: [0.9, 1.1])
    gain_db: float = 0.0
    crop_seconds: float = 0.0
    flip: float = 0.0
    shift: float = 0.0
    jitter: float = 0.0
    words: float = 0.0


@dataclass
class TrainConfig:
    """The loop; `batch_size` is the whole effective batch: `accumulate` parts of it are run one after another.

    `members` > 1 trains that many models with different seeds and averages their probabilities. `specialists`: further models,
    a second stage that starts from the first member and trains on with balanced sampling and class weights at
    `specialist_lr` * optim.lr, so that rare classes have a say in the average. `amp`: bfloat16 where it is safe; auto on a GPU only.
    """

    epochs: int = 40
    batch_size: int = 32
    accumulate: int = 1
    patience: int = 0
    selection: str = "uar"
    sampling: typing.Literal["natural", "balanced"] = "natural"
    ema: float = 0.0
    amp: typing.Literal["auto", "on", "off"] = "auto"
    keep: typing.Literal["best", "last"] = "best"
    members: int = 1
    specialists: int = 0
    specialist_lr: float = 0.3
    seed: int = 0

    @property
    def models(self) -> int:
        """How many models are trained and averaged."""
        return self.members + self.specialists


@dataclass
class Recipe:
    """One row of choices: what goes in, the four slots, what is minimised, how it is trained."""

    summary: str = ""
    source: str = ""
    tasks: dict[str, TaskConfig] = field(default_factory=lambda: {"emotion": TaskConfig()})
    streams: dict[str, StreamConfig] = field(default_factory=dict)
    fusion: Part = field(default_factory=lambda: {"name": "concat"})
    context: Parts = field(default_factory=list)
    objectives: dict[str, Part] = field(default_factory=lambda: {"cross_entropy": {}})
    balance: Part = field(default_factory=lambda: {"name": "none"})
    split: SplitConfig = field(default_factory=SplitConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def to_dict(self) -> dict[str, Any]:
        """The resolved recipe as plain YAML values."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        return plain


def recipe_names() -> dict[str, Path]:
    """Name -> file of the recipes that ship."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by name or path, with `dotted.key=value` overrides applied and every option checked.

    `extends: NAME` in a recipe starts from another one: mappings are merged, and a part of another name takes the place
    of the whole part. Raises UnknownName (closest recipes, keys or parts), BadConfig or MissingFile.
    """
    return make_recipe(_read_recipe(name), overrides)


def _read_recipe(name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of a recipe, with those of what it extends below them."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = recipe_names()
        if name not in known:
            raise UnknownName.among("recipe", name, known)
        path = known[name]
    if name in seen:
        raise BadConfig(f"recipe {name} extends itself", f"take the line 'extends' out of {path}")
    values = read_yaml(path)
    base = values.pop("extends", None)
    return values if base is None else _merged(_read_recipe(str(base), (*seen, name)), values)


def _merged(base: Any, over: Any) -> Any:
    """`over` on top of `base`; a part of `base` may be its name alone."""
    if isinstance(base, str) and isinstance(over, dict):
        base = {"name": base}
    if not isinstance(base, dict) or not isinstance(over, dict) or base.get("name") != over.get("name", base.get("name")):
        return over
    return base | {key: _merged(base.get(key), value) for key, value in over.items()}


def make_recipe(values: Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """A checked Recipe from YAML values and overrides."""
    data = _plain(values)
    for override in overrides:
        _apply(data, override)
    recipe: Recipe = fill(Recipe, data)
    _check_numbers(recipe)
    _resolve_parts(recipe)
    return recipe


def read_yaml(path: Path, what: str = "recipe") -> dict[str, Any]:
    """A YAML mapping; MissingFile or BadConfig name the file."""
    import yaml

    if not path.is_file():
        raise MissingFile(f"no {what} file {path}", "see: affuse list recipes" if what == "recipe" else "check the path")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path} is not valid YAML: {error}", "mend the file") from error
    if not isinstance(values, dict):
        raise BadConfig(f"{path} does not hold a mapping", "start from: affuse show RECIPE" if what == "recipe" else f"write the {what} as key: value")
    return values


def to_yaml(recipe: Recipe) -> str:
    """The resolved recipe as YAML text."""
    import yaml

    return yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True, width=110)


def parse_value(text: str) -> Any:
    """A YAML scalar or flow value; numbers like 1e-4 are floats."""
    import yaml

    try:
        return float(text) if _is_exponent(text) else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise BadConfig(f"cannot read the value {text!r}", "quote it, or write a number, word or [list]") from error


def _is_exponent(text: str) -> bool:
    return "e" in text.lower() and text.lower().lstrip("+-")[:1].isdigit() and not text.lower().startswith("0x")


def _plain(values: Any) -> Any:
    """A deep copy of YAML values in which exponent strings ('1e-4', a YAML 1.1 trap) are floats, and paths strings."""
    if isinstance(values, Path):
        return str(values)
    if isinstance(values, Mapping):
        return {str(k): _plain(v) for k, v in values.items()}
    if isinstance(values, list | tuple):
        return [_plain(v) for v in values]
    if isinstance(values, str) and _is_exponent(values):
        try:
            return float(values)
        except ValueError:
            return values
    return values


def _apply(data: dict[str, Any], override: str) -> None:
    """Set one `dotted.key=value`; a part given by its name alone replaces the whole part."""
    key, sep, text = override.partition("=")
    if not sep or not key:
        raise BadConfig(f"'{override}' is not key=value", "write for example optim.lr=1e-4 or fusion=gated")
    node: Any = data
    *parents, last = key.split(".")
    for parent in parents:
        at, child = _child(node, parent, override)
        if isinstance(child, str):
            child = {"name": child}
        node[at] = child if isinstance(child, dict | list) else {}
        node = node[at]
    node[_child(node, last, override)[0]] = parse_value(text)


def _child(node: Any, key: str, override: str) -> tuple[Any, Any]:
    """(key, value) of a mapping's entry, or of a list's by its number."""
    if not isinstance(node, list):
        return key, node.get(key)
    if not key.isdigit() or int(key) >= len(node):
        raise BadConfig(f"'{override}': '{key}' is none of the {len(node)} parts", "they are counted from 0")
    return int(key), node[int(key)]


def fill(cls: type[Any], data: Mapping[str, Any], where: str = "") -> Any:
    """An instance of dataclass `cls` from a mapping; unknown keys name the closest ones, a missing one is named."""
    if not isinstance(data, Mapping):
        raise BadConfig(f"{where or 'recipe'} = {data!r} is not a mapping", f"write {where}: {{key: value}}")
    hints = typing.get_type_hints(cls)
    prefix = f"{where}." if where else ""
    for key in data:
        if key not in hints:
            raise UnknownName.among("key", f"{prefix}{key}", [f"{prefix}{h}" for h in hints])
    for needed in dataclasses.fields(cls):
        if needed.name not in data and needed.default is needed.default_factory is dataclasses.MISSING:
            raise BadConfig(f"{prefix}{needed.name} has no value", f"add {prefix}{needed.name}")
    return cls(**{key: _value(value, hints[key], f"{prefix}{key}") for key, value in data.items()})


def _value(value: Any, hint: Any, where: str) -> Any:
    args = typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return fill(typing.cast("type[Any]", hint), value or {}, where)
    if hint == Part:
        return _part(value, where)
    if hint == Parts:
        return parts(value, where)
    if typing.get_origin(hint) is dict and isinstance(value, Mapping):
        return {str(key): _value(v, args[1], f"{where}.{key}") for key, v in value.items()}
    return registry.convert(value, hint, where)


def _part(value: Any, where: str) -> Part:
    if isinstance(value, str):
        return {"name": value}
    if value is None:
        return {}
    if isinstance(value, Mapping) and isinstance(value.get("name", ""), str):
        return dict(value)
    raise BadConfig(f"{where} = {value!r} is not a part", f"write {where}=NAME or {where}: {{name: NAME, ...}}")


def parts(value: Any, where: str = "context") -> Parts:
    """Parts one after the other, from a list, a single one, or none."""
    several = value if isinstance(value, list) else [value]
    found = [part for v in several if (part := _part(v, where)) not in ({}, {"name": "none"})]
    for part in found:
        if part.get("name", "none") == "none":
            raise BadConfig(f"{where} = {part} has options and names no part", f"write {where}=NAME before them; see: affuse list contexts")
    return found


_MOST: dict[str, dict[str, float]] = {
    "split": {"valid": 1, "test": 1, "seed": 2**32 - 1},
    "optim": {"momentum": 1, "lr": math.inf, "weight_decay": math.inf, "warmup": 1, "clip": math.inf},
    "augment": dict.fromkeys(("modality_dropout", "mixup_probability", "noise", "speed", "flip", "words"), 1),
    "train": {"patience": math.inf, "ema": 1, "specialist_lr": math.inf, "seed": 2**32 - 1},
}


def _check_numbers(recipe: Recipe) -> None:
    """Refuse numbers that training would stop at late, or take without a word: negative, not finite, a share above 1."""
    given = {f"{part}.{key}": (getattr(getattr(recipe, part), key), most) for part, keys in _MOST.items() for key, most in keys.items()}
    given |= {f"streams.{name}.lr": (stream.lr, math.inf) for name, stream in recipe.streams.items()}
    for key, (value, most) in given.items():
        if not 0 <= value <= most or value == math.inf:
            raise BadConfig(f"{key} = {value}", f"give a number from 0 {'on' if most == math.inf else f'to {most}'}")


def _resolve_parts(recipe: Recipe) -> None:
    """Check every part's options and write their defaults out."""
    if not recipe.streams:
        raise BadConfig("the recipe has no streams", "add streams: {NAME: {encoder: NAME}}")
    if not recipe.tasks:
        raise BadConfig("the recipe has no tasks", "add tasks: {emotion: {column: label}}")
    if recipe.train.selection not in (metrics := registry.cards("metrics")):
        raise UnknownName.among("value of train.selection:", recipe.train.selection, metrics)
    for name, stream in recipe.streams.items():
        stream.encoder = _resolved("encoders", stream.encoder, f"streams.{name}.encoder")
        kind, options = extractor_of(name, stream.extractor)
        if kind in registry.cards("extractors") or kind != name:
            resolved = registry.resolve("extractors", kind, options, f"streams.{name}.extractor")
            stream.extractor = ({"name": kind} if kind != name else {}) | resolved
    recipe.fusion = _resolved("fusions", recipe.fusion, "fusion")
    recipe.context = [_resolved("contexts", part, f"context.{i}") for i, part in enumerate(recipe.context)]
    for name, options in recipe.objectives.items():
        weight = {"weight": registry.convert(options.get("weight", 1.0), float, f"objectives.{name}.weight")}
        rest = {k: v for k, v in options.items() if k not in ("weight", "name")}
        recipe.objectives[name] = weight | registry.resolve("objectives", name, rest, f"objectives.{name}")
    how = {"apply": registry.convert(recipe.balance.pop("apply", "auto"), Literal["auto", "grad", "lr"], "balance.apply")}
    recipe.balance = how | _resolved("balancers", recipe.balance, "balance")


def extractor_of(stream: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(extractor, its parameters) of a stream: the extractor that the options name, else the one of the stream's name."""
    return options.get("name", stream), {k: v for k, v in options.items() if k != "name"}


def _resolved(kind: str, part: Part, where: str) -> Part:
    if "name" not in part:
        raise BadConfig(f"{where} has no name", f"see: affuse list {kind}")
    options = {k: v for k, v in part.items() if k != "name"}
    return {"name": part["name"], **registry.resolve(kind, part["name"], options, where)}


def shipped(name: Path) -> Path:
    """The folder of the model of that name that ships with affuse. Raises MissingFile for a path, UnknownName for another name."""
    there = {p.name: p for p in PRETRAINED.iterdir()} if PRETRAINED.is_dir() else {}
    if len(name.parts) > 1:
        raise MissingFile(f"no run {name}", "train one (affuse train ...) or give the path of a run folder")
    if name.name not in there:
        raise UnknownName.among("model or run folder", name.name, there)
    return there[name.name]
