"""A pretrained language model on token ids, trained with the rest of the model."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from affuse.core import hub
from affuse.core.errors import BadConfig
from affuse.core.types import Encoding, StreamSpec
from affuse.layers.masked import masked_mean

CARD = {
    "summary": "a pretrained transformer on token ids (extractor `tokens`), fine-tuned with the rest of the model",
    "source": "Devlin et al., BERT, NAACL 2019; Wang et al., MiniLM, NeurIPS 2020",
    "entry": "Language",
    "modalities": ["text"],
    "takes": "token ids",
    "gives": ["tokens", "pooled"],
    "licence": "Apache-2.0; the weights: that of the model, see the extractor `tokens`",
    "extra": "minilm",
    "packages": ["transformers"],
}
ROWS = 16  # utterances of similar length that run together: short ones are not padded to the longest


class Language(nn.Module):
    """Token ids x [N, T], mask [N, T] -> Encoding with dim = the model's hidden size.

    `model`: the one of the extractor `tokens`. `depth`: how many of its first blocks are kept (0: all).
    `frozen_layers`: the embeddings and that many blocks are not trained, and have no dropout (None: all is trained; 0:
    only the embeddings are frozen). `pool`: the mean over the tokens, or the first one. `dropout` is that of the model,
    and that of the pooled vector. Raises MissingDependency where the model is missing, BadConfig for steps that are no
    ids and for layers that do not exist.
    """

    def __init__(
        self,
        spec: StreamSpec,
        *,
        model: str = "minilm",
        depth: int = 0,
        frozen_layers: int | None = None,
        pool: Literal["mean", "first"] = "mean",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if spec.shape != ():
            message = f"stream '{spec.name}' has steps of shape {spec.shape}"
            raise BadConfig(message, "language needs token ids: extractor `tokens`")
        self.model, self.pool, self.rate = model, pool, spec.rate
        self.network = _network(model, depth)
        self.dim = int(self.network.config.hidden_size)
        for module in self.network.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
        self.dropout = nn.Dropout(dropout)
        self._frozen = _first(self.network, model, frozen_layers)
        for module in self._frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> Language:
        """Training mode for all but the frozen layers."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(self, x: Tensor, mask: Tensor) -> Encoding:
        """Encoding with tokens [N, T, d], mask [N, T], pooled [N, d]; BadConfig for ids of another model."""
        ids = x.long().masked_fill(~mask, self.network.config.pad_token_id or 0)
        if int(ids.max()) >= self.network.config.vocab_size:
            message = f"token {int(ids.max())} is none of model '{self.model}'"
            raise BadConfig(message, "give encoder and extractor the same model")
        tokens = x.new_zeros(*mask.shape, self.dim)
        ends = (mask * torch.arange(1, mask.shape[1] + 1, device=x.device)).amax(1).clamp_min(1)
        for rows in ends.argsort(stable=True).split(ROWS):
            steps = slice(0, int(ends[rows].max()))
            tokens[rows, steps] = self._run(ids[rows, steps], mask[rows, steps]).to(tokens.dtype)
        pooled = masked_mean(tokens, mask) if self.pool == "mean" else tokens[:, 0]
        return Encoding(tokens, mask, self.dropout(pooled))

    def _run(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Last hidden states [n, T, d] of ids [n, T], 0 where the mask is False."""
        attended = mask.clone()
        attended[:, 0] = True  # a softmax over nothing is NaN
        states: Tensor = self.network(input_ids=ids, attention_mask=attended.long()).last_hidden_state
        return states * mask.unsqueeze(-1)


def _network(model: str, depth: int) -> Any:
    """The pretrained network with its first `depth` blocks, without its pooler, which was not pretrained."""
    from transformers import AutoConfig

    folder = hub.find(model, hub.TEXT_MODELS, "text model")
    total = AutoConfig.from_pretrained(folder).num_hidden_layers
    if not 0 <= depth <= total:
        raise BadConfig(f"depth = {depth}", f"model '{model}' has {total} layers; 0 keeps them all")
    network = hub.load(folder, num_hidden_layers=depth or total)
    if getattr(network, "pooler", None) is not None:
        network.pooler = None
    return network.requires_grad_(True)


def _first(network: Any, model: str, count: int | None) -> list[nn.Module]:
    """The embeddings and the first `count` blocks of a network; nothing for None."""
    if count is None:
        return []
    total = network.config.num_hidden_layers
    blocks = next((m for m in network.modules() if isinstance(m, nn.ModuleList) and len(m) == total), None)
    if not 0 <= count <= total or blocks is None:
        found = total if blocks else "no"
        raise BadConfig(f"frozen_layers = {count}", f"model '{model}' has {found} layers that can be frozen one by one")
    return [network.embeddings, *blocks[:count]]
