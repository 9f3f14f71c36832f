"""Several processes under torchrun: who am I, and sums over all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from affuse.core.errors import BadConfig


def start(device: str) -> tuple[int, int]:
    """(rank, world size); joins the process group when torchrun's variables are set, each process on a GPU of its own.

    Raises BadConfig for one GPU by number, which all processes would share.
    """
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) < 2:
        return 0, 1
    if device.startswith("cuda:"):
        raise BadConfig(
            f"--device {device} for {os.environ['WORLD_SIZE']} processes",
            "give --device cuda: each takes a GPU of its own",
        )
    if not dist.is_initialized():
        if device == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    return dist.get_rank(), dist.get_world_size()


def is_first() -> bool:
    """Whether this process writes (rank 0 under torchrun)."""
    return os.environ.get("RANK", "0") == "0"


def wait(world: int) -> None:
    """Wait until every process has come here."""
    if world > 1:
        dist.barrier()


def finish() -> None:
    """Leave the process group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def total(value: Tensor, world: int) -> Tensor:
    """Sum of a tensor over all processes."""
    if world > 1:
        dist.all_reduce(value)
    return value


def gather(value: Any, world: int) -> list[Any]:
    """The value of every process, in the order of their ranks."""
    values = [value] * world
    if world > 1:
        dist.all_gather_object(values, value)
    return values


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter], world: int) -> None:
    """Add every gradient over all processes in one message.

    Plain sums instead of DistributedDataParallel: the loss is already divided by the weight of the whole
    effective batch, encode() and fuse() are called apart, and a stream absent on one process is no special case.
    """
    if world == 1:
        return
    parameters = [p for p in parameters if p.requires_grad]
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([g.reshape(-1) for g in grads])
    dist.all_reduce(flat)
    for p, part in zip(parameters, flat.split([g.numel() for g in grads]), strict=True):
        p.grad = part.view_as(p).clone()


class _Rows(torch.autograd.Function):
    """Rows of all processes one after the other; the gradient of a process' own rows is summed over processes."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:  # type: ignore[override]
        counts = [torch.zeros((), dtype=torch.int64, device=rows.device) for _ in range(dist.get_world_size())]
        dist.all_gather(counts, torch.tensor(len(rows), device=rows.device))
        context.sizes = [int(c) for c in counts]
        padded = rows.new_zeros(max(context.sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        found = [torch.zeros_like(padded) for _ in counts]
        dist.all_gather(found, padded)
        return torch.cat([part[:n] for part, n in zip(found, context.sizes, strict=True)])

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.split(context.sizes)[dist.get_rank()]


def gather_rows(rows: Tensor, world: int) -> Tensor:
    """Rows [n, ...] of every process in the order of their ranks, [M, ...]; gradients reach those of each.

    All processes must call it; each may have another number of rows. Losses that are summed over processes then have
    the gradients that one process with all rows would have.
    """
    return rows if world == 1 else _Rows.apply(rows)  # type: ignore[no-any-return]
