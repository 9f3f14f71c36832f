"""What extractors of pretrained networks share: finding them (core.hub), files of the user, mixtures of layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from affuse.core import io
from affuse.core.errors import BadConfig, BadFeatures, MissingDependency
from affuse.core.hub import Known, find, load, quiet, weights_hash

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Known", "file", "find", "load", "mix", "mixture_width", "quiet", "weights_hash"]


def file(path: Path | None, sha256: str, what: str, option: str = "weights") -> Path:
    """A weights file that the user brings: there, and with the checksum that was given ("" = not checked).

    `what` names the file, its size, licence and place for the message, `option` what it is given as. Raises
    MissingDependency or BadFeatures.
    """
    if path is None or not path.expanduser().is_file():
        raise MissingDependency(
            f"{what} is needed{f' and {path} is no file' if path else ''}", f"give its path as {option}=FILE"
        )
    path = path.expanduser()
    if sha256 and (found := io.file_sha256(path)) != sha256.lower():
        raise BadFeatures(
            f"{path}: sha256 is {found}, expected {sha256}", "download the file again, or correct sha256="
        )
    return path


def mixture_width(width: int, layers: Sequence[int], weights: Sequence[float]) -> int:
    """How wide the mixture of layers of `width` is."""
    return width if weights else width * len(layers)


def mix(states: Sequence[Tensor], layers: Sequence[int], weights: Sequence[float] = ()) -> Tensor:
    """The hidden states [..., D] of the chosen layers side by side [..., L * D], or their sum by `weights` (sum 1).

    Layer 0 is the input of the first block, -1 the last block's output. Raises BadConfig for a layer that is not there.
    """
    import torch

    if not layers:
        raise BadConfig("no layer of the model is chosen", "give at least one as layers=, such as -1 for the last")
    for layer in layers:
        if not -len(states) <= layer < len(states):
            raise BadConfig(f"the model has no layer {layer}", f"layers are 0 to {len(states) - 1}, or -1 for the last")
    if not weights:
        return torch.cat([states[layer] for layer in layers], -1)
    if len(weights) != len(layers) or min(weights) < 0 or sum(weights) <= 0:
        raise BadConfig(f"{len(layers)} layers have weights {list(weights)}", "give one positive weight per layer")
    shares = torch.tensor(weights) / sum(weights)
    return torch.stack([states[layer] * share for layer, share in zip(layers, shares, strict=True)]).sum(0)
