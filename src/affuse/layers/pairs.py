"""What objectives that compare utterances share: codes of names, a queue of past vectors, draws by pair of names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig, UnknownName
from affuse.core.types import Encoded

UNKNOWN = 0  # the code of an empty name


def codes(names: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
    """A number for every name, the same in every process and run: [N] int64; UNKNOWN for an empty one."""
    given = np.asarray(names, dtype=object)
    found = np.where(given == "", np.uint64(UNKNOWN), pd.util.hash_array(given, categorize=False))
    return torch.from_numpy(found.astype(np.uint64).view(np.int64)).to(device)


class Queue(nn.Module):
    """The last `size` rows that were pushed, of several tensors side by side; as buffers they are saved with the model.

    Filled lazily: `read` gives what is there. A push of more than `size` rows keeps the last ones.
    """

    at: Tensor
    filled: Tensor

    def __init__(self, size: int, width: int, vectors: Sequence[str], numbers: Sequence[str]) -> None:
        super().__init__()
        self.size, self.names = size, (*vectors, *numbers)
        for name in vectors:
            self.register_buffer(name, torch.zeros(size, width))
        for name in numbers:
            self.register_buffer(name, torch.zeros(size, dtype=torch.int64))
        self.register_buffer("at", torch.tensor(0))
        self.register_buffer("filled", torch.tensor(0))

    def read(self) -> dict[str, Tensor]:
        """Every tensor's rows, in any order; copies, so that a later push does not change them."""
        return {name: self.get_buffer(name)[: int(self.filled)].clone() for name in self.names}

    @torch.no_grad()
    def push(self, rows: Mapping[str, Tensor]) -> None:
        """Add rows [n, ...] of every tensor in place of the oldest."""
        n = len(next(iter(rows.values())))
        place = (int(self.at) + torch.arange(n, device=self.at.device))[-self.size :] % max(1, self.size)
        for name in self.names:
            self.get_buffer(name)[place] = rows[name][-self.size :].to(self.get_buffer(name).dtype)
        self.at.fill_((int(self.at) + n) % max(1, self.size))
        self.filled.fill_(min(self.size, int(self.filled) + n))


def draws(one: Tensor, other: Tensor, step: int) -> Tensor:
    """Uniform numbers in (0, 1) for pairs of utterances by their codes [n] and [M], and the step: [n, M] float32.

    A pair has the same number in every process, whatever else is in the batch.
    """
    mixed = _mixed(_mixed(one + _mixed(torch.full_like(one[:1], step))).unsqueeze(1) + other.unsqueeze(0) * 3)
    return ((mixed >> 40) & 0xFFFFFF).float().add(0.5) / 2**24


def _mixed(x: Tensor) -> Tensor:
    """int64 with every bit stirred: Steele et al., Fast Splittable Pseudorandom Number Generators, OOPSLA 2014."""
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def choose(scores: Tensor, uniform: Tensor) -> Tensor:
    """One column [n] of scores [n, M] with probability softmax(scores), by the draws `uniform` [n, M]: Gumbel's way."""
    return (scores - (-uniform.log()).log()).argmax(1)


def cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    """-sum_j target_ij log softmax(logits_i)_j [n], of logits [n, M] that may be -inf where the target is 0."""
    return -(target * logits.log_softmax(1).masked_fill(target == 0, 0.0)).sum(1)


def back(values: Tensor, rows: Tensor, size: int) -> Tensor:
    """Values [n] of some rows as those of all [size]; 0 for the others."""
    return values.new_zeros(size).index_copy(0, rows, values)


def gathered(own: Encoded, gather: Callable[[Tensor], Tensor]) -> Encoded:
    """The utterances of all processes, in the order of their ranks, with gradient for the own ones."""

    def steps(value: Tensor) -> Tensor:
        length = int(gather(torch.tensor([value.shape[1]], device=value.device)).max())
        value = nn.functional.pad(value, (0, 0) * (value.dim() - 2) + (0, length - value.shape[1]))
        return gather(value.byte()).bool() if value.dtype == torch.bool else gather(value)

    return replace(
        own,
        tokens={s: steps(v) for s, v in own.tokens.items()},
        mask={s: steps(v) for s, v in own.mask.items()},
        pooled={s: gather(v) for s, v in own.pooled.items()},
        present=gather(own.present.byte()).bool(),
        t0={s: gather(v) for s, v in own.t0.items()},
    )


def two_of(there: Sequence[str], named: Sequence[str], part: str) -> tuple[str, str]:
    """The two streams that an objective compares: the named ones, else those that are there, of a model of two.

    Raises BadConfig for another number, UnknownName for streams that the model lacks.
    """
    chosen = list(named or there)
    for name in chosen:
        if name not in there:
            raise UnknownName.among(f"stream of {part}:", name, there)
    if len(set(chosen)) != 2 or len(chosen) != 2:
        message = f"objective '{part}' compares two streams, and {', '.join(chosen)} are {len(chosen)}"
        raise BadConfig(message, f"name two of {', '.join(there)} as its streams" if len(there) > 1 else "add a stream")
    return chosen[0], chosen[1]
