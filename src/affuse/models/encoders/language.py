"""A pretrained language model on token ids, trained with the rest of the model."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from affuse.core import hub
from affuse.core.errors import BadConfig
from affuse.core.types import Encoding, StreamSpec
from affuse.layers.lora import adapt
from affuse.layers.masked import masked_mean

CARD = {
    "summary": "a pretrained transformer on token ids (extractor `tokens`), fine-tuned with the rest of the model",
    "source": "Devlin et al., BERT, NAACL 2019; Wang et al., MiniLM, NeurIPS 2020; LoRA: Hu et al., 2021",
    "entry": "Language",
    "modalities": ["text"],
    "takes": "token ids",
    "gives": ["tokens", "pooled"],
    "licence": "Apache-2.0; the weights: that of the model, see the extractor `tokens`",
    "extra": "minilm",
    "packages": ["transformers"],
}
ROWS = 16  # utterances of similar length that run together: short ones are not padded to the longest
# What LoRA adapts where nothing else is asked for: the projections to queries and values (Hu et al. 2021, 7.1), as
# BERT and RoBERTa, LLaMA and its kin, DeBERTa, and DistilBERT call them.
QUERY_AND_VALUE = (
    "query", "value", "q_proj", "v_proj", "query_proj", "value_proj", "q_lin", "v_lin",
)  # fmt: skip


class Language(nn.Module):
    """Token ids x [N, T], mask [N, T] -> Encoding with dim = the model's hidden size.

    `model`: the one of the extractor `tokens`: a model that reads both ways (BERT) or from left to right (LLaMA).
    `depth`: how many of its first blocks are kept (0: all). `frozen_layers`: the embeddings and that many blocks are
    not trained, and have no dropout (None: all is trained; 0: only the embeddings are frozen, all that ALBERT allows,
    whose depths share one block). `pool`: the mean over the tokens, the first one, or the last one, which alone has
    attended to all others in a model that reads from left to right. `dropout` is that of the model, and that of the
    pooled vector.

    `lora`: the rank of LoRA (0: the weights themselves are trained); the pretrained weights then stay as they are, and
    the layers called `lora_layers` (none: queries and values) get an update that is trained, scaled by
    `lora_alpha` / rank, or / sqrt(rank) with `lora_stabilised`; `lora_dropout` is that of its input. `bfloat16`: the
    pretrained weights take half the memory; only with LoRA.

    Raises MissingDependency where the model is missing, BadConfig for steps that are no ids, and for layers that do not
    exist.
    """

    def __init__(
        self,
        spec: StreamSpec,
        *,
        model: str = "minilm",
        depth: int = 0,
        frozen_layers: int | None = None,
        pool: Literal["mean", "first", "last"] = "mean",
        dropout: float = 0.1,
        lora: int = 0,
        lora_alpha: float = 8.0,
        lora_dropout: float = 0.05,
        lora_stabilised: bool = False,
        lora_layers: tuple[str, ...] = (),
        bfloat16: bool = False,
    ) -> None:
        super().__init__()
        if spec.shape != ():
            message = f"stream '{spec.name}' has steps of shape {spec.shape}"
            raise BadConfig(message, "language needs token ids: extractor `tokens`")
        if bfloat16 and not lora:
            raise BadConfig("bfloat16 = true trains weights that are too coarse for small steps", "add lora=8")
        self.model, self.pool, self.rate = model, pool, spec.rate
        self.network = _network(model, depth, torch.bfloat16 if bfloat16 else torch.float32)
        self.dim = int(self.network.config.hidden_size)
        for module in self.network.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
        self.dropout = nn.Dropout(dropout)
        self._frozen = hub.freeze_first(self.network, model, frozen_layers)
        if lora:
            self.network.requires_grad_(False)
            blocks = hub.blocks(self.network)
            parts = blocks[frozen_layers or 0 :] if blocks else [self.network]
            names = lora_layers or QUERY_AND_VALUE
            adapt(parts, names, lora, lora_alpha, dropout=lora_dropout, stabilised=lora_stabilised)

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
        steps, before = torch.arange(mask.shape[1], device=x.device), mask.int().argmax(1, keepdim=True)
        if before.any():  # padding on the left: positions are counted from the first token
            order = (steps + before) % len(steps)
            tokens, pooled = self._encode(ids.gather(1, order), mask.gather(1, order))
            back = ((steps - before) % len(steps)).unsqueeze(-1).expand_as(tokens)
            tokens = tokens.gather(1, back)
        else:
            tokens, pooled = self._encode(ids, mask)
        return Encoding(tokens, mask, self.dropout(pooled))

    def _encode(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Last hidden states [N, T, d] of ids [N, T] and their pooled vectors [N, d]; equal rows run once in eval."""
        if not self.training:
            rows, place = torch.cat([ids, mask.long()], 1).unique(dim=0, return_inverse=True)
            if len(rows) < len(ids):
                once, there = rows.chunk(2, 1)
                tokens, pooled = self._encode(once, there.bool())
                return tokens[place], pooled[place]
        tokens = torch.zeros(*mask.shape, self.dim, device=ids.device)
        ends = (mask * torch.arange(1, mask.shape[1] + 1, device=ids.device)).amax(1).clamp_min(1)
        for rows in ends.argsort(stable=True).split(ROWS):
            steps = slice(0, int(ends[rows].max()))
            tokens[rows, steps] = self._run(ids[rows, steps], mask[rows, steps]).to(tokens.dtype)
        if self.pool == "mean":
            return tokens, masked_mean(tokens, mask)
        return tokens, tokens[torch.arange(len(ids), device=ids.device), 0 if self.pool == "first" else ends - 1]

    def _run(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Last hidden states [n, T, d] of ids [n, T], 0 where the mask is False."""
        attended = mask.clone()
        attended[:, 0] = True  # a softmax over nothing is NaN
        states: Tensor = self.network(input_ids=ids, attention_mask=attended.long()).last_hidden_state
        return states * mask.unsqueeze(-1)


def _network(model: str, depth: int, dtype: torch.dtype) -> Any:
    """The pretrained network with its first `depth` blocks, without its pooler, which was not pretrained."""
    folder = hub.find(model, hub.TEXT_MODELS, "text model")
    total = hub.config(folder).num_hidden_layers
    if not 0 <= depth <= total:
        raise BadConfig(f"depth = {depth}", f"model '{model}' has {total} layers; 0 keeps them all")
    network = hub.load(folder, dtype=dtype, num_hidden_layers=depth or total)
    network.config.use_cache = False  # of models that write texts: nothing is asked twice here
    if getattr(network, "pooler", None) is not None:
        network.pooler = None
    return network.requires_grad_(True)
