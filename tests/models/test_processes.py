"""A stream that is absent on one of two processes: norms over both neither wait for ever nor count what is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from affuse.core import registry
from affuse.core.types import StreamSpec
from affuse.models.model import encode_present

CASES = {
    "log_mel_cnn": (StreamSpec("log_mel", "audio", (16,), 100.0), (4, 64, 16), {"dropout": 0.0}),
    "log_mel_crnn": (StreamSpec("log_mel", "audio", (16,), 100.0), (4, 64, 16), {"dropout": 0.0}),
    "wave_cnn": (
        StreamSpec("waveform", "audio", (), 8000.0),
        (4, 4000),
        {"dropout": 0.0},
    ),
    "filterbank_cnn": (StreamSpec("waveform", "audio", (), 8000.0), (4, 4000), {"dropout": 0.0, "conv_dropout": 0.0}),
    "resnet18": (StreamSpec("log_stft", "audio", (32,), 20.0), (4, 48, 32), {}),
}


def case(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    spec, shape, options = CASES[name]
    torch.manual_seed(0)
    encoder = registry.build("encoders", name, spec, **options)
    return encoder.eval(), torch.randn(shape), torch.ones(shape[:2], dtype=torch.bool)


def step(encoder: nn.Module, x: Tensor, mask: Tensor, present: Tensor) -> list[Tensor]:
    """Gradients and running statistics after one batch, nothing random in it."""
    for module in encoder.modules():
        module.training = module is encoder or "BatchNorm" in type(module).__name__
    encode_present(encoder, x, mask, present).pooled.square().sum().backward()
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in encoder.parameters()]
    return grads + [b.clone() for name, b in encoder.named_buffers() if "running" in name]


def one(rank: int, name: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    encoder, x, mask = case(name)
    torch.save(step(encoder, x, mask, torch.full((4,), rank == 0)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("name", CASES)
def test_absent_on_one_process(name, tmp_path: Path) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    context = mp.spawn(one, args=(name, str(tmp_path)), nprocs=2, join=False)
    for _ in range(20):
        if context.join(timeout=5):
            break
    else:
        for process in context.processes:
            process.kill()
        pytest.fail("one process waits for the other")
    here, there = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    alone = step(*case(name), torch.ones(4, dtype=torch.bool))
    parameters = len(list(case(name)[0].parameters()))
    for k, (a, b, want) in enumerate(zip(here, there, alone, strict=True)):
        torch.testing.assert_close(a + b if k < parameters else b, want, rtol=1e-4, atol=1e-5)
