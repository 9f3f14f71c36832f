"""The recipe's balancer for affuse's own model, and a whole split as it sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from affuse.balance.balancer import Balancer, Step
from affuse.core import registry
from affuse.core.config import Recipe
from affuse.core.errors import BadConfig
from affuse.core.parts import Computed
from affuse.core.tasks import selected
from affuse.core.types import Batch, Encoded
from affuse.models.model import Model
from affuse.training.data import Dataset
from affuse.training.losses import Losses
from affuse.training.step import Piece, evaluating

if TYPE_CHECKING:
    from affuse.core.parts import Encoder

NAMED = ("id", "conversation", "position", "speaker", "source")


def make_balancer(recipe: Recipe, train: Dataset, model: Model) -> Balancer:
    """The recipe's balancer, set up for the model; the model's own random numbers stay as they are without it.

    Raises BadConfig for a model of one stream, for a task per frame, where nothing is held out for a balancer that
    looks there, and for multipliers that cannot act where balance.apply says.
    """
    name = recipe.balance.name
    options = {k: v for k, v in recipe.balance.options.items() if k != "apply"}
    balancer: Balancer = registry.build("balancers", name, **options)
    if name == "none":
        return balancer
    balancer.acts(recipe.balance.options["apply"])
    task = selected(train.tasks, recipe.train.task)
    if len(model.encoders) < 2:
        raise BadConfig(f"balance '{name}' with one stream", "balance needs two streams or more; set balance=none")
    if task.per_frame:
        message = f"balance '{name}' compares what streams answer for utterances, and task '{task.name}' is per frame"
        raise BadConfig(message, "set balance=none, or train.task to a task per utterance")
    if balancer.compares and recipe.split.valid <= 0:
        message = f"balance '{name}' compares train with held-out data, and split.valid = 0"
        raise BadConfig(message, "set split.valid=0.15, or another balance")
    dims = {s: cast("Encoder", encoder).dim for s, encoder in model.encoders.items()}
    with torch.random.fork_rng(devices=[]):
        balancer.setup(dict(model.encoders), dims, task.width)
    return balancer.to(next(model.parameters()).dtype)


@torch.no_grad()
def encode_split(model: Model, losses: Losses, task: str, data: Dataset, device: torch.device) -> Step:
    """The Step of a whole split, in evaluation mode and without its inputs."""
    with evaluating(model):
        found = [(model.encode(b), b) for b in (b.to(device) for b in data.batches(64))]
    keep = [e if model.reads_tokens else e.without_tokens() for e, _ in found]
    encoded = Encoded.join(keep)
    targets = {t: torch.cat([b.target[t] for _, b in found]) for t in data.columns}
    known = {t: torch.cat([b.target_mask[t] for _, b in found]) for t in data.columns}
    named: dict[str, Any] = {k: [v for _, b in found for v in getattr(b, k)] for k in NAMED}
    whole = Batch(found[0][1].streams, {}, {}, encoded.present, {}, targets, known, **named)
    weight = losses.total_weight([whole], device, lambda x: x)
    return Piece(model, losses, data.tasks[task], encoded, whole, weight, Computed(model, encoded)).step()
