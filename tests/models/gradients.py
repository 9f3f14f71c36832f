"""Gradients of every encoder with a convolution against those in float64, which other code computes. A program."""

from __future__ import annotations

import copy
import faulthandler

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from affuse.core import registry
from affuse.core.errors import BadConfig
from affuse.core.types import StreamSpec

SPECS = (
    StreamSpec("sound", "audio", (), 16000.0),
    StreamSpec("spectrogram", "audio", (64,), 50.0),
    StreamSpec("faces", "vision", (48, 48, 3), 5.0),
    StreamSpec("pictures", "vision", (96, 96, 3), 5.0),  # larger than a quarter of any first cache
)
STEPS = {(): 16000, (64,): 150, (48, 48, 3): 5, (96, 96, 3): 3}


def cases() -> list[tuple[str, StreamSpec]]:
    """Every encoder with a convolution, and what it takes of SPECS."""
    found = []
    for name, card in registry.cards("encoders").items():
        for spec in SPECS:
            if spec.modality in card["modalities"] and convolutions(make(name, spec)):
                found.append((name, spec))
    return found


def convolutions(module: nn.Module) -> list[_ConvNd]:
    """The convolutions that a module holds."""
    return [m for m in module.modules() if isinstance(m, _ConvNd)]


def make(name: str, spec: StreamSpec) -> nn.Module:
    """An encoder with its default options, fitted; nothing where it does not take such a stream."""
    torch.manual_seed(0)
    try:
        encoder = registry.build("encoders", name, spec, **registry.resolve("encoders", name, {}, name))
    except BadConfig:
        return nn.Identity()
    if hasattr(encoder, "fit"):
        encoder.fit([inputs(spec, 4)])
    return encoder.eval()


def inputs(spec: StreamSpec, n: int) -> tuple[Tensor, Tensor]:
    """x [n, T, *shape] and mask [n, T], rows of different lengths."""
    steps = STEPS[spec.shape]
    x = torch.rand(n, steps, *spec.shape, generator=torch.Generator().manual_seed(n)) - 0.5 * (spec.shape == ())
    return x, torch.arange(steps) < torch.linspace(steps // 2, steps, n).long()[:, None]


def gradients(encoder: nn.Module, x: Tensor, mask: Tensor, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Every parameter's gradient, nothing random in it; `dtype`: under autocast."""
    encoder.zero_grad()
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        encoder(x, mask).pooled.float().square().mean().backward()
    return {name: p.grad.detach().double().flatten() for name, p in encoder.named_parameters() if p.grad is not None}


def worst(found: dict[str, Tensor], right: dict[str, Tensor]) -> tuple[float, str]:
    """The largest distance of a gradient from the right one, as a share of its length, and whose it is."""
    scale = max(float(g.norm()) for g in right.values())
    return max((float((found[k] - g).norm() / max(float(g.norm()), 1e-3 * scale)), k) for k, g in right.items())


def train(encoder: nn.Module, x: Tensor, mask: Tensor, steps: int = 3) -> None:
    """A few steps of training, randomness and all: nothing may crash or stop being finite."""
    optimiser = torch.optim.SGD(encoder.train().parameters(), lr=1e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        encoder(x, mask).pooled.square().mean().backward()
        optimiser.step()
    assert all(bool(p.isfinite().all()) for p in encoder.parameters()), "training left numbers that are not finite"


def main() -> None:
    """Print each case and how far its gradients lie from float64's; a wrong one ends the program by name."""
    faulthandler.enable()
    for name, spec in cases():
        encoder = make(name, spec)
        exact = copy.deepcopy(encoder).double()
        print(f"{name} on {spec.name}", end=": ", flush=True)
        x, mask = inputs(spec, 3)  # an odd number of frames: two threads share them unevenly
        right = gradients(exact, x.double(), mask)
        for _ in range(3):  # an overrun shows now or at the next allocation
            gap, whose = worst(gradients(encoder, x, mask), right)
            assert gap < 1e-2, f"the gradient of {whose} is {gap:.1%} off"
        half, _ = worst(gradients(encoder, x, mask, torch.bfloat16), right)
        assert half < 0.5, f"bfloat16: {half:.1%} off"
        train(encoder, x, mask)
        print(f"{gap:.1e} (bfloat16 {half:.1e})", flush=True)


if __name__ == "__main__":
    main()
