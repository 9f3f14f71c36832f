"""The concordance loss: the metric's own value, over labelled items alone, however they are dealt to processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from affuse.core.labels import LabelSpace
from affuse.core.parts import Computed
from affuse.core.tasks import Task
from affuse.core.types import Batch, Fused, Output
from affuse.metrics import value
from affuse.objectives.ccc import CCCLoss

TASK = Task("affect", LabelSpace("va", ("valence", "arousal"), "values"), "frame")


def made(n: int = 6, frames: int = 9, seed: int = 0):
    """Predictions [n, frames, 2] with gradient, and a batch of which some frames are unlabelled."""
    g = torch.Generator().manual_seed(seed)
    target = torch.rand(n, frames, 2, generator=g) * 2 - 1
    logits = (target * 0.5 + torch.randn(n, frames, 2, generator=g) * 0.3).requires_grad_()
    known = torch.rand(n, frames, generator=g) > 0.3
    return logits, Batch((), {}, {}, torch.ones(n, 0), target={"affect": target}, target_mask={"affect": known})


def computed(gather=lambda rows: rows) -> Computed:
    return Computed(None, None, gather=gather)


def total(logits, batch, weight, gather=lambda rows: rows):
    part = CCCLoss(TASK)
    loss = part(Output({"affect": logits}, Fused(torch.zeros(len(logits), 1))), batch, computed(gather))
    return (loss * part.weights(batch)).sum() / weight


def test_it_is_one_minus_the_metric_over_labelled_frames():
    logits, batch = made()
    known = batch.target_mask["affect"]
    wanted = 1 - value("ccc", batch.target["affect"][known].numpy(), logits.detach()[known].numpy())
    loss = total(logits, batch, known.sum())
    assert loss.item() == pytest.approx(wanted, abs=1e-5)
    loss.backward()
    assert (logits.grad[~known] == 0).all() and (logits.grad[known] != 0).any()


def test_frames_without_a_label_do_not_matter():
    logits, batch = made()
    known = batch.target_mask["affect"]
    other = torch.where(known.unsqueeze(-1), logits, torch.full_like(logits, 50.0))
    torch.testing.assert_close(total(logits, batch, known.sum()), total(other, batch, known.sum()))


def test_two_processes_have_the_loss_and_gradient_of_one():
    logits, batch = made()
    known, target = batch.target_mask["affect"], batch.target["affect"]
    total(logits, batch, known.sum()).backward()
    wanted, logits.grad = logits.grad.clone(), None
    every = {False: logits[known], True: target[known]}
    loss = torch.zeros(())
    for rows in (slice(0, 2), slice(2, 6)):
        own = Batch((), {}, {}, torch.ones(len(known[rows]), 0), target={"affect": target[rows]})
        own.target_mask["affect"] = known[rows]
        loss = loss + total(logits[rows], own, known.sum(), lambda x: every[not x.requires_grad])
    loss.backward()
    np.testing.assert_allclose(logits.grad.numpy(), wanted.numpy(), atol=1e-6)


@pytest.mark.parametrize("labelled", [0, 1])
def test_a_batch_of_no_or_one_labelled_frame_is_finite(labelled):
    logits, batch = made()
    batch.target_mask["affect"] = torch.zeros(6, 9, dtype=torch.bool)
    batch.target_mask["affect"].view(-1)[:labelled] = True
    loss = total(logits, batch, 1.0)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()
