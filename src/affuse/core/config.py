"""Recipes: dataclasses filled from a YAML file, then from `dotted.key=value` overrides.

A part (encoder, fusion, context, objective, balancer) is written `name` or `{name: ..., option: value}`, and read as a
Part; its options are checked against the part's own parameters by the registry. The resolved recipe is plain YAML
again.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from affuse.core import registry
from affuse.core.errors import BadConfig, MissingFile, UnknownName
from affuse.core.parts import Part
from affuse.core.types import Modality

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
PRETRAINED = Path(__file__).resolve().parent.parent / "pretrained"
GROUPS = "speaker+source"  # what never crosses a split unless a user asks for it


@dataclass
class TaskConfig:
    """What is predicted: the manifest column and its label space (inferred from the corpus where empty).

    `kind`: labels of the space of which any number holds (multilabel), where the space itself says otherwise.
    `resolution`: an answer per utterance or per frame; frames are labelled by the label track `track` of the corpus,
    without one every frame has its utterance's label, at `rate` Hz. `reduce`: how frames become the utterance's answer.
    `refine`: a column (intensity, say) whose values divide every class into finer ones while training; answers add
    their probabilities up again.
    """

    column: str = "label"
    space: str = ""
    refine: str = ""
    kind: Literal["", "classes", "multilabel", "values"] = ""
    resolution: Literal["utterance", "frame"] = "utterance"
    track: str = ""
    rate: float = 5.0
    reduce: Literal["mean_logits", "mean_probabilities", "vote"] = "mean_probabilities"


@dataclass
class ObjectiveConfig:
    """One term of the loss: the part `of` with its options, the task it is for (empty: the one that selects), its
    weight.

    In a recipe these stand side by side, `{name: PART, task: ..., weight: ..., OPTION: ...}`, under a name of one's
    own; where the part's name is missing, the term is called like its part.
    """

    part: Part
    task: str = ""
    weight: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """As in a recipe."""
        return {"name": self.part.name, "task": self.task, "weight": self.weight, **self.part.options}


@dataclass
class StreamConfig:
    """One input: the encoder, and the extractor's options (the stream's name is the extractor's, unless they name one).

    `rate`: steps per second at which the store is read, by `how` (0: as it was made). `init`: a run whose encoder of
    the same modality this one starts from; `frozen`: it then stays as it is. `lr` multiplies optim.lr for the encoder.
    `standardise_by`: a manifest column, such as speaker, by whose groups the stored values are standardised (see
    `features.groups`).
    """

    encoder: Part
    extractor: dict[str, Any] = field(default_factory=dict)
    init: str = ""
    frozen: bool = False
    lr: float = 1.0
    rate: float = 0.0
    how: Literal["mean", "nearest"] = "mean"
    standardise_by: str = ""


@dataclass
class SplitConfig:
    """How utterances are split; what shares a value of `group_by`, a column or several joined by +, stays together.

    `labelled`: the share of the training utterances of each class that keep their labels, drawn by `seed`; a smaller
    share is part of a larger one. The others serve objectives that need no labels, or nothing.
    """

    group_by: str = GROUPS
    valid: float = 0.15
    test: float = 0.2
    labelled: float = 1.0
    seed: int = 0


@dataclass
class OptimConfig:
    """AdamW with decoupled weight decay, or SGD with `momentum` (biases, norms: no decay); a schedule per step."""

    name: typing.Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    lr: float = 1e-3
    weight_decay: float = 0.01
    schedule: typing.Literal["cosine", "one_cycle", "constant"] = "cosine"
    warmup: float = 0.05
    clip: float = 1.0


@dataclass
class AugmentConfig:
    """What is done to training batches only; probabilities per utterance, `words`: the share of hidden token ids."""

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

    `task` is the one that selects and leads reports (empty: the first), `selection` its metric (empty: uar for classes,
    label_f1 for labels, ccc for values). `ema`: momentum of the teacher, a moving average of the model (0: none);
    `ema_schedule`: warm rises from 0.1 to it, cosine from it to 1, over the steps; with `ema_keeps` it is the average
    that is scored and kept. `members` > 1 trains that many models with different seeds and averages their
    probabilities. `specialists`: further models, a second stage that starts from the first member and trains on with
    balanced sampling and class weights at `specialist_lr` * optim.lr, so that rare classes count in the average.
    `amp`: bfloat16 where it is safe; auto on a GPU only. `window`, `hop` (s): long recordings in overlapping windows,
    for tasks per frame (0: whole; a hop of 0: half a window). `unfreeze`: pattern of parameter names -> the first
    epoch, from 1, that trains them. `pseudo_labels`: from epoch `pseudo_from` on, utterances without a label have that
    which the kept model gives them with at least this probability, drawn anew every epoch (0: none).
    """

    epochs: int = 40
    batch_size: int = 32
    accumulate: int = 1
    patience: int = 0
    task: str = ""
    selection: str = ""
    sampling: typing.Literal["natural", "balanced"] = "natural"
    window: float = 0.0
    hop: float = 0.0
    unfreeze: dict[str, int] = field(default_factory=dict)
    pseudo_labels: float = 0.0
    pseudo_from: int = 1
    ema: float = 0.0
    ema_schedule: Literal["warm", "constant", "cosine"] = "warm"
    ema_keeps: bool = True
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
    """One row of choices: what goes in, the four slots, what is minimised, how it is trained.

    `pretrain`: what `affuse pretrain` changes, keys as in a recipe. `init`: the run whose encoders, fusion and contexts
    a training starts from, where they are the same (of folds: fold from fold). `control`: modalities that a model of
    their own is trained on beside this one, so that a report shows what the others add.
    """

    summary: str = ""
    source: str = ""
    init: str = ""
    control: list[Modality] = field(default_factory=list)
    tasks: dict[str, TaskConfig] = field(default_factory=lambda: {"emotion": TaskConfig()})
    streams: dict[str, StreamConfig] = field(default_factory=dict)
    fusion: Part = field(default_factory=lambda: Part("concat"))
    context: list[Part] = field(default_factory=list)
    objectives: dict[str, ObjectiveConfig] = field(
        default_factory=lambda: {"cross_entropy": ObjectiveConfig(Part("cross_entropy"))}
    )
    balance: Part = field(default_factory=lambda: Part("none", {"apply": "auto"}))
    split: SplitConfig = field(default_factory=SplitConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    pretrain: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The resolved recipe as plain YAML values."""
        return {f.name: _written(getattr(self, f.name)) for f in dataclasses.fields(self)}


def _written(value: Any) -> Any:
    """A value of a recipe as YAML has it."""
    if isinstance(value, Part | ObjectiveConfig):
        return _plain(value.to_dict())
    if dataclasses.is_dataclass(value):
        return {f.name: _written(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _written(v) for k, v in value.items()}
    return [_written(v) for v in value] if isinstance(value, list | tuple) else _plain(value)


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
    if (
        not isinstance(base, dict)
        or not isinstance(over, dict)
        or base.get("name") != over.get("name", base.get("name"))
    ):
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
    if recipe.pretrain:
        pretraining(recipe)
    return recipe


def pretraining(recipe: Recipe) -> Recipe:
    """The recipe of the stage before: without labels, and with the changes that `pretrain` names.

    Its objectives are those of `pretrain`, else those of the recipe that need no labels. The last epoch is kept, of one
    model. Raises BadConfig where no objective is left or one needs labels.
    """
    values = recipe.to_dict()
    changes = values.pop("pretrain")
    cards = registry.cards("objectives")
    without = {n: o for n, o in values["objectives"].items() if cards[o["name"]].get("unlabelled")}
    values["objectives"] = changes.pop("objectives", without)
    values |= {"init": "", "control": [], "balance": "none"}
    fixed = {"keep": "last", "patience": 0, "members": 1, "specialists": 0, "sampling": "natural", "pseudo_labels": 0}
    values["train"] |= fixed
    values["split"]["labelled"] = 1.0
    made = make_recipe(_merged(values, changes))
    asking = [n for n, o in made.objectives.items() if not cards[o.part.name].get("unlabelled")]
    if asking or not made.objectives:
        what = f"objective '{asking[0]}' needs labels" if asking else "no objective does without labels"
        fitting = ", ".join(n for n, card in cards.items() if card.get("unlabelled"))
        raise BadConfig(f"pretraining: {what}", f"give pretrain.objectives some of {fitting}")
    return made


def read_yaml(path: Path, what: str = "recipe") -> dict[str, Any]:
    """A YAML mapping; MissingFile or BadConfig name the file."""
    import yaml

    if not path.is_file():
        raise MissingFile(
            f"no {what} file {path}", "see: affuse list recipes" if what == "recipe" else "check the path"
        )
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _loader())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path} is not valid YAML: {error}", "mend the file") from error
    if not isinstance(values, dict):
        raise BadConfig(
            f"{path} does not hold a mapping",
            "start from: affuse show RECIPE" if what == "recipe" else f"write the {what} as key: value",
        )
    return values


@lru_cache
def _loader() -> type[Any]:
    """YAML's safe loader, but a key that stands twice is an error: YAML itself forgets the first one in silence."""
    import yaml

    class Unique(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [
                self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"
            ]
            if twice := [key for i, key in enumerate(keys) if key in keys[:i]]:
                raise yaml.YAMLError(f"'{twice[0]}' stands twice in one mapping, line {node.start_mark.line + 1}")
            return super().construct_mapping(node, deep)

    return Unique


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
    if hint not in (Part, ObjectiveConfig) and dataclasses.is_dataclass(hint):
        return fill(typing.cast("type[Any]", hint), value or {}, where)
    if hint is Part:
        return Part.read(value, where)
    if hint == dict[str, Any] and isinstance(value, str):  # an extractor by its name alone
        return {"name": value}
    if hint == dict[str, Any] and isinstance(value, Mapping) and not isinstance(value.get("name", ""), str):
        raise BadConfig(
            f"{where}.name = {value['name']!r} is not a name", f"write {where}=NAME or {where}: {{name: NAME, ...}}"
        )
    if hint is ObjectiveConfig:
        return _objective(value, where)
    if hint == list[Part]:
        return parts(value, where)
    if typing.get_origin(hint) is dict and isinstance(value, Mapping):
        return {str(key): _value(v, args[1], f"{where}.{key}") for key, v in value.items()}
    return registry.convert(value, hint, where)


def _objective(value: Any, where: str) -> ObjectiveConfig:
    """A term of the loss; one without a part's name is called like its part."""
    given = {"name": value} if isinstance(value, str) else dict(value or {})
    task, weight = given.pop("task", ""), registry.convert(given.pop("weight", 1.0), float, f"{where}.weight")
    return ObjectiveConfig(Part.read({"name": where.rpartition(".")[2]} | given, where), str(task), weight)


def parts(value: Any, where: str = "context") -> list[Part]:
    """Parts one after the other, from a list, a single one, or none."""
    several = value if isinstance(value, list | tuple) else [value]
    given = [v for v in several if v not in (None, {}, "none", {"name": "none"})]
    for v in given:
        if isinstance(v, Mapping) and v.get("name", "none") == "none":
            raise BadConfig(
                f"{where} = {v} has options and names no part",
                f"write {where}=NAME before them; see: affuse list contexts",
            )
    return [part for v in given if (part := Part.read(v, where)).name != "none"]


_MOST: dict[str, dict[str, float]] = {
    "split": {"valid": 1, "test": 1, "labelled": 1, "seed": 2**32 - 1},
    "optim": {"momentum": 1, "lr": math.inf, "weight_decay": math.inf, "warmup": 1, "clip": math.inf},
    "augment": dict.fromkeys(("modality_dropout", "mixup_probability", "noise", "speed", "flip", "words"), 1),
    "train": dict.fromkeys(("window", "hop", "patience", "specialist_lr"), math.inf) 
    | {"ema": 1, "pseudo_labels": 1, "seed": 2**32 - 1},
}


def _check_numbers(recipe: Recipe) -> None:
    """Raise BadConfig for numbers that training cannot use: negative ones, infinite ones, a share above 1."""
    given = {
        f"{part}.{key}": (getattr(getattr(recipe, part), key), most)
        for part, keys in _MOST.items()
        for key, most in keys.items()
    }
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
    lead = recipe.train.task or next(iter(recipe.tasks))
    if lead not in recipe.tasks:
        raise UnknownName.among("value of train.task:", lead, recipe.tasks)
    if recipe.train.selection not in ("", *(metrics := registry.cards("metrics"))):
        raise UnknownName.among("value of train.selection:", recipe.train.selection, metrics)
    for name, stream in recipe.streams.items():
        stream.encoder = _resolved("encoders", stream.encoder, f"streams.{name}.encoder")
        kind, options = extractor_of(name, stream.extractor)
        if kind in registry.cards("extractors") or kind != name:
            resolved = registry.resolve("extractors", kind, options, f"streams.{name}.extractor")
            stream.extractor = ({"name": kind} if kind != name else {}) | resolved
    recipe.fusion = _resolved("fusions", recipe.fusion, "fusion")
    recipe.context = [_resolved("contexts", part, f"context.{i}") for i, part in enumerate(recipe.context)]
    for name, objective in recipe.objectives.items():
        objective.part = _resolved("objectives", objective.part, f"objectives.{name}")
        objective.task = objective.task or lead
        if objective.task not in recipe.tasks:
            raise UnknownName.among(f"value of objectives.{name}.task:", objective.task, recipe.tasks)
    given = dict(recipe.balance.options)
    how = {"apply": registry.convert(given.pop("apply", "auto"), Literal["auto", "grad", "lr"], "balance.apply")}
    balance = _resolved("balancers", Part(recipe.balance.name, given), "balance")
    recipe.balance = Part(balance.name, how | balance.options)


def extractor_of(stream: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(extractor, its parameters) of a stream: that which the options name, else the one of the stream's name."""
    return options.get("name", stream), {k: v for k, v in options.items() if k != "name"}


def _resolved(kind: str, part: Part, where: str) -> Part:
    return Part(part.name, registry.resolve(kind, part.name, part.options, where))


def shipped(name: Path) -> Path:
    """The folder of the model of that name that ships with affuse.

    Raises MissingFile for a path, UnknownName for another name.
    """
    there = {p.name: p for p in PRETRAINED.iterdir()} if PRETRAINED.is_dir() else {}
    if len(name.parts) > 1:
        raise MissingFile(f"no run {name}", "train one (affuse train ...) or give the path of a run folder")
    if name.name not in there:
        raise UnknownName.among("model or run folder", name.name, there)
    return there[name.name]
