from __future__ import annotations

import pytest
import torch

from affuse.balance import MSLR
from affuse.balance.attach import Attached
from affuse.balance.balancer import Epoch
from affuse.core.errors import BadConfig, UnknownName

from .conftest import Planted, network, optimizer_of, train


def started(balancer, data: Planted):
    """The balancer attached and set up, its encoders, and features."""
    encoders, head = network(len(data.x))
    attached = Attached(balancer, encoders, head, optimizer_of(encoders, head))
    with torch.no_grad():
        features = {s: encoders[s](x) for s, x in data.x.items()}
    attached._start(features, data.y)
    return attached, encoders, features


def fake_accuracies(monkeypatch, module: str, rows: list[list[float]]) -> None:
    left = iter(rows)
    monkeypatch.setattr(f"affuse.balance.{module}.accuracies", lambda step: torch.tensor(next(left)))


def test_the_rate_follows_the_last_accuracy_over_the_mean_of_the_window(monkeypatch):
    rows = [[0.5, 0.2], [0.6, 0.2], [0.9, 0.1], [0.9, 0.0]]
    fake_accuracies(monkeypatch, "mslr", rows)
    balancer = MSLR(window=3, bases={"s1": 1.1})
    attached, _, features = started(balancer, Planted([2.0, 1.0]))
    base = torch.tensor([1.0, 1.1])
    torch.testing.assert_close(balancer.k, base)
    seen = torch.tensor(rows)
    for t in range(4):
        attached.epoch_end({"valid": (features, torch.zeros(96, dtype=torch.long))})
        torch.testing.assert_close(balancer.k, base * seen[t] / seen[max(0, t - 2) : t + 1].mean(0))


def test_a_stream_that_was_never_right_or_never_there_keeps_its_base(monkeypatch):
    fake_accuracies(monkeypatch, "mslr", [[0.0, float("nan")]])
    balancer = MSLR()
    attached, _, features = started(balancer, Planted([2.0, 1.0]))
    attached.epoch_end({"valid": (features, torch.zeros(96, dtype=torch.long))})
    torch.testing.assert_close(balancer.k, torch.ones(2))


def test_accuracies_are_those_of_the_model_from_one_stream():
    data = Planted([2.0, 1.0])
    balancer = MSLR()
    attached, _, features = started(balancer, data)
    attached.epoch_end({"valid": (features, data.y)})
    with torch.no_grad():
        alone = attached.head({"s0": features["s0"], "s1": 0 * features["s1"]}).argmax(1)
    assert float(balancer.past[-1, 0]) == pytest.approx(float((alone == data.y).float().mean()))


def test_without_a_held_out_split_train_is_looked_at_and_the_trace_says_so():
    data = Planted([2.0, 1.0])
    attached, encoders, features = started(MSLR(), data)
    attached.epoch_end({"train": (features, data.y)})
    attached.step({s: encoders[s](x) for s, x in data.x.items()}, data.y)
    assert "accuracy_train.s0" in attached.trace
    other, _ = train(MSLR(), data, epochs=2)
    assert "accuracy_valid.s0" in other.trace and "accuracy_train.s0" not in other.trace


def test_nothing_to_look_at_is_an_error():
    attached, _, _ = started(MSLR(), Planted([2.0, 1.0]))
    with pytest.raises(BadConfig, match="needs data after an epoch"):
        attached.epoch_end()
    with pytest.raises(BadConfig):
        Epoch(0, 1, {}, lambda split: None).held_out()


def test_a_base_of_no_stream_is_unknown():
    with pytest.raises(UnknownName, match="s9"):
        started(MSLR(bases={"s9": 1.0}), Planted([2.0, 1.0]))
