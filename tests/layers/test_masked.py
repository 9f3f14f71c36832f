from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from affuse.layers.masked import (
    AttentionPool,
    MaskedBatchNorm,
    MaskedGRU,
    masked_max_pool,
    masked_mean,
    masked_softmax,
    pool_mask,
)

LENGTHS = torch.tensor([7, 3, 0, 9])
MASK = torch.arange(9) < LENGTHS.unsqueeze(1)


@pytest.mark.parametrize("trailing", [(), (5,)])
def test_full_mask_equals_torch(trailing: tuple[int, ...]) -> None:
    x = torch.randn(4, 6, 9, *trailing) * 3 + 20
    ours = MaskedBatchNorm(6)
    reference = (nn.BatchNorm2d if trailing else nn.BatchNorm1d)(6)
    for _ in range(3):
        y, z = ours(x, torch.ones(4, 9, dtype=torch.bool)), reference(x)
        torch.testing.assert_close(y, z, atol=2e-5, rtol=1e-4)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(ours, name), getattr(reference, name))
    torch.testing.assert_close(
        ours.eval()(x, torch.ones(4, 9, dtype=torch.bool)), reference.eval()(x), atol=2e-5, rtol=1e-4
    )


def test_statistics_come_from_valid_steps_only() -> None:
    x = torch.randn(4, 6, 9) + 2
    valid = x.transpose(1, 2)[MASK]
    ours, reference = MaskedBatchNorm(6), nn.BatchNorm1d(6)
    y = ours(x.masked_fill(~MASK.unsqueeze(1), 1e4), MASK)
    torch.testing.assert_close(y.transpose(1, 2)[MASK], reference(valid), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.running_var, reference.running_var)
    assert y.transpose(1, 2)[~MASK].abs().max() == 0


def test_gradient_equals_torch_on_the_valid_steps() -> None:
    x = torch.randn(4, 6, 9, requires_grad=True)
    weight = torch.randn(int(MASK.sum()), 6)
    ours, reference = MaskedBatchNorm(6), nn.BatchNorm1d(6)
    (ours(x, MASK).transpose(1, 2)[MASK] * weight).sum().backward()
    got, x.grad = x.grad, None
    (reference(x.transpose(1, 2)[MASK]) * weight).sum().backward()
    torch.testing.assert_close(got, x.grad, atol=1e-5, rtol=1e-4)


def test_batch_without_content_leaves_statistics_alone() -> None:
    norm = MaskedBatchNorm(3)
    before = {k: v.clone() for k, v in norm.state_dict().items()}
    y = norm(torch.randn(2, 3, 5), torch.zeros(2, 5, dtype=torch.bool))
    assert y.abs().max() == 0
    assert all(torch.equal(before[k], v) for k, v in norm.state_dict().items())


def _one_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    norm, x = _norm_case()
    rows = slice(0, 1) if rank == 0 else slice(1, 4)  # unequal counts on purpose
    part = x[rows].clone().requires_grad_()
    y = norm(part, MASK[rows])
    (y**3).sum().backward()
    torch.save((y.detach(), part.grad, norm.running_mean, norm.running_var), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def _norm_case() -> tuple[MaskedBatchNorm, Tensor]:
    return MaskedBatchNorm(6), torch.randn(4, 6, 9, 2, generator=torch.Generator().manual_seed(0))


def test_two_processes_equal_one_batch(tmp_path: Path) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    mp.spawn(_one_process, args=(str(tmp_path),), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    norm, x = _norm_case()
    y = norm(x.requires_grad_(), MASK)
    (y**3).sum().backward()
    torch.testing.assert_close(torch.cat([p[0] for p in parts]), y.detach())
    torch.testing.assert_close(torch.cat([p[1] for p in parts]), x.grad, atol=1e-5, rtol=1e-4)
    for p in parts:
        torch.testing.assert_close(p[2], norm.running_mean)
        torch.testing.assert_close(p[3], norm.running_var)


def test_mean_equals_each_row_alone() -> None:
    x = torch.randn(4, 9, 5)
    for i, n in enumerate(LENGTHS.tolist()):
        want = x[i, :n].mean(0) if n else torch.zeros(5)
        torch.testing.assert_close(masked_mean(x, MASK)[i], want)


def test_softmax_and_attention_ignore_padding_and_survive_empty_rows() -> None:
    weights = masked_softmax(torch.randn(4, 9), MASK)
    torch.testing.assert_close(weights.sum(1), (LENGTHS > 0).float())
    assert weights[~MASK].abs().max() == 0
    x, pool = torch.randn(4, 9, 5), AttentionPool(5, heads=2)
    y = pool(x, MASK)
    assert y.shape == (4, 10)
    assert y[2].abs().max() == 0
    assert y.isfinite().all()
    torch.testing.assert_close(y, pool(x.masked_fill(~MASK.unsqueeze(2), 1e6), MASK))
    torch.testing.assert_close(y[1:2], pool(x[1:2, :3], MASK[1:2, :3]))
    y.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pool.parameters())


def test_gru_equals_torch_on_each_row_alone() -> None:
    x, gru = torch.randn(4, 9, 5), MaskedGRU(5, 4)
    y = gru(x, MASK)
    for i, n in enumerate(LENGTHS.tolist()):
        assert y[i, n:].numel() == 0 or y[i, n:].abs().max() == 0
        if n:
            torch.testing.assert_close(y[i, :n], gru.gru(x[i : i + 1, :n])[0][0])


def test_gru_skips_interior_holes() -> None:
    x, gru = torch.randn(1, 6, 5), MaskedGRU(5, 4)
    mask = torch.tensor([[False, True, False, True, True, False]])
    y = gru(x.masked_fill(~mask.unsqueeze(2), 1e3), mask)
    torch.testing.assert_close(y[mask], gru.gru(x[mask].unsqueeze(0))[0][0])
    assert y[~mask].abs().max() == 0


def test_max_pool_keeps_the_last_odd_step_and_no_padding() -> None:
    x = -torch.rand(4, 3, 9, 4) - 1  # all negative: a padding zero would win
    y, mask = masked_max_pool(x, MASK, (2, 2))
    assert torch.equal(mask, pool_mask(MASK, 2))
    assert mask.sum(1).tolist() == [4, 2, 0, 5]
    alone, _ = masked_max_pool(x[1:2, :, :3], MASK[1:2, :3], (2, 2))
    torch.testing.assert_close(y[1:2, :, :2], alone)
    assert y.transpose(1, 2)[~mask].abs().max() == 0
    assert y.transpose(1, 2)[mask].max() < 0
