"""What a balancer sees of affuse's own model and batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from affuse.balance.balancer import Balancer, Features, Step
from affuse.core import registry
from affuse.core.config import Recipe
from affuse.core.errors import BadConfig
from affuse.core.types import Batch, Encoded, Output
from affuse.models.model import EVERY, Model, encode_present, join_encoded
from affuse.training.data import Dataset


def make_balancer(recipe: Recipe, train: Dataset, model: Model) -> Balancer:
    """The recipe's balancer, set up for the model; the model's own random numbers stay as they are without it.

    Raises BadConfig for a model of one stream, where nothing is held out for a balancer that looks there, and for multipliers that
    cannot act where balance.apply says.
    """
    name, options = recipe.balance["name"], {k: v for k, v in recipe.balance.items() if k not in ("name", "apply")}
    balancer: Balancer = registry.build("balancers", name, **options)
    if name == "none":
        return balancer
    balancer.acts(recipe.balance["apply"])
    if len(model.encoders) < 2:
        raise BadConfig(f"balance '{name}' with one stream", "balance needs two streams or more; set balance=none")
    if balancer.compares and recipe.split.valid <= 0:
        raise BadConfig(f"balance '{name}' compares train with held-out data, and split.valid = 0", "set split.valid=0.15, or another balance")
    dims = {s: int(encoder.dim) for s, encoder in model.encoders.items()}  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        balancer.setup(dict(model.encoders), dims, len(train.spaces[_task(recipe)]))
    return balancer.to(next(model.parameters()).dtype)


def shared_weights(model: Model) -> list[nn.Parameter]:
    """Weights [*, d] that read the encoders' features of every stream: those of one head for all of them."""
    if not model.one_head or len(model.before):
        return []
    return [head.weight for head in model.stream_heads[EVERY].values()]  # type: ignore[operator, union-attr]


def _task(recipe: Recipe) -> str:
    """The task that streams are weighed by: the first one."""
    return next(iter(recipe.tasks))


def _main(recipe: Recipe, objectives: nn.ModuleDict) -> Any:
    """The objective of that task which trains on labels; BadConfig where there is none."""
    cards = registry.cards("objectives")
    for name, objective in objectives.items():
        if objective.task == _task(recipe) and not cards[name].get("auxiliary"):
            return objective
    raise BadConfig(f"no objective for task '{_task(recipe)}'", "add one, such as objectives.cross_entropy")


def make_step(
    model: Model, objectives: nn.ModuleDict, recipe: Recipe, encoded: Encoded, batch: Batch, weight: Mapping[str, Tensor]
) -> Step:
    """The Step of one piece; weight[objective]: the sum of the items' weights over the effective batch."""
    task, main = _task(recipe), _main(recipe, objectives)
    name = next(n for n, o in objectives.items() if o is main)

    def fuse(features: Features, present: Tensor) -> Output:
        return model.fuse(replace(encoded, pooled=features, present=present), batch)

    views = max(getattr(objective, "views", 1) for objective in objectives.values())

    def run(features: Features, present: Tensor, share: Tensor | float = 1.0) -> tuple[Tensor, Tensor, Features]:
        outputs = [fuse(features, present) for _ in range(views)]
        terms = torch.stack([
            recipe.objectives[n]["weight"] * (objective(output, batch) * objective.weights(batch) * share).sum() / weight[n]  # type: ignore[operator]
            for output in (replace(o, aux={**o.aux, "views": outputs}) for o in outputs)
            for n, objective in objectives.items()
        ])  # fmt: skip
        parts = terms.detach().view(views, -1).sum(0) / views
        return terms.sum() / views, torch.stack([o.logits[task] for o in outputs]).mean(0), dict(zip(objectives, parts, strict=True))

    def probe(features: Features, present: Tensor) -> Tensor:
        training = model.training
        model.eval()
        logits = fuse(features, present).logits[task]
        model.train(training)
        return logits

    def item_loss(logits: Tensor) -> Tensor:
        return main(Output({task: logits}, logits), batch)  # type: ignore[no-any-return]

    def again(i: int, stream: str) -> Any:
        return lambda encoder: encode_present(encoder, batch.x[stream], batch.mask[stream], batch.present[:, i]).pooled

    def blocks() -> Features:
        widths: dict[str, int] = getattr(model.fusion, "widths", {})
        if not widths or model.conversational:
            return {}
        return dict(zip(widths, model.heads[task].weight.split(list(widths.values()), dim=1), strict=True))  # type: ignore[operator]

    items = main.weights(batch) / weight[name]
    streams = {s: again(i, s) for i, s in enumerate(encoded.streams)} if batch.x else {}
    return Step(encoded.pooled, encoded.present, batch.target[task], items, run, probe, item_loss, streams, blocks)


@torch.no_grad()
def see(model: Model, objectives: nn.ModuleDict, recipe: Recipe, data: Dataset, device: torch.device) -> Step:
    """The Step of a whole split, in evaluation mode and without its inputs and tokens."""
    training = model.training
    model.eval()
    found = [(model.encode(b), b) for b in (b.to(device) for b in data.batches(64))]
    model.train(training)
    encoded = join_encoded([e for e, _ in found])
    targets = {t: torch.cat([b.target[t] for _, b in found]) for t in data.columns}
    known = {t: torch.cat([b.target_mask[t] for _, b in found]) for t in data.columns}
    named = {k: [v for _, b in found for v in getattr(b, k)] for k in ("id", "conversation", "position", "speaker", "source")}
    whole = Batch(found[0][1].streams, {}, {}, encoded.present, {}, targets, known, **named)
    total = {n: o.weights(whole).sum().clamp_min(1e-12) for n, o in objectives.items()}  # type: ignore[operator]
    return make_step(model, objectives, recipe, encoded, whole, total)
