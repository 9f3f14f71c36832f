"""IR networks: equal to their two public families under those families' weight names, and honest about other files."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, linear, prelu

from affuse.core.errors import BadFeatures
from affuse.layers.iresnet import IResNet, from_state

UNITS = (1, 2, 1, 1)
WIDTHS = (64, 128, 256, 512)


def norm(state: dict[str, Tensor], name: str, n: int) -> None:
    state |= {f"{name}.{k}": torch.rand(n) + 0.5 for k in ("weight", "running_var")}
    state |= {f"{name}.{k}": torch.randn(n) * 0.1 for k in ("bias", "running_mean")}
    state[f"{name}.num_batches_tracked"] = torch.tensor(3)


def kernel(outputs: int, inputs: int, k: int) -> Tensor:
    return torch.randn(outputs, inputs, k, k) / (inputs * k * k) ** 0.5


def insight(units: tuple[int, ...], grid: int) -> dict[str, Tensor]:
    """A random state dict with the names of InsightFace's arcface_torch."""
    state = {"conv1.weight": kernel(64, 3, 3), "prelu.weight": torch.rand(64)}
    norm(state, "bn1", 64)
    width = 64
    for s, (count, outputs) in enumerate(zip(units, WIDTHS, strict=True), 1):
        for i in range(count):
            name = f"layer{s}.{i}"
            norm(state, f"{name}.bn1", width)
            state[f"{name}.conv1.weight"] = kernel(outputs, width, 3)
            norm(state, f"{name}.bn2", outputs)
            state[f"{name}.prelu.weight"] = torch.rand(outputs)
            state[f"{name}.conv2.weight"] = kernel(outputs, outputs, 3)
            norm(state, f"{name}.bn3", outputs)
            if i == 0:
                state[f"{name}.downsample.0.weight"] = kernel(outputs, width, 1)
                norm(state, f"{name}.downsample.1", outputs)
            width = outputs
    norm(state, "bn2", 512)
    state |= {"fc.weight": torch.randn(512, 512 * grid**2) / 100, "fc.bias": torch.randn(512)}
    norm(state, "features", 512)
    return state


def evolve(units: tuple[int, ...], grid: int) -> dict[str, Tensor]:
    """A random state dict with the names of face.evoLVe's IR networks."""
    state = {"input_layer.0.weight": kernel(64, 3, 3), "input_layer.2.weight": torch.rand(64)}
    norm(state, "input_layer.1", 64)
    width, n = 64, 0
    for count, outputs in zip(units, WIDTHS, strict=True):
        for _ in range(count):
            name = f"body.{n}.res_layer"
            norm(state, f"{name}.0", width)
            state |= {f"{name}.1.weight": kernel(outputs, width, 3), f"{name}.2.weight": torch.rand(outputs)}
            state[f"{name}.3.weight"] = kernel(outputs, outputs, 3)
            norm(state, f"{name}.4", outputs)
            if width != outputs:
                state[f"body.{n}.shortcut_layer.0.weight"] = kernel(outputs, width, 1)
                norm(state, f"body.{n}.shortcut_layer.1", outputs)
            width, n = outputs, n + 1
    norm(state, "output_layer.0", 512)
    state |= {"output_layer.3.weight": torch.randn(512, 512 * grid**2) / 100, "output_layer.3.bias": torch.randn(512)}
    norm(state, "output_layer.4", 512)
    return state


def normed(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    parts = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
    return batch_norm(x, *parts)


def run_insight(x: Tensor, w: dict[str, Tensor], units: tuple[int, ...]) -> Tensor:
    """The network by its definition, on the weights' own names."""
    x = prelu(normed(conv2d(x, w["conv1.weight"], padding=1), w, "bn1"), w["prelu.weight"])
    for s, count in enumerate(units, 1):
        for i in range(count):
            n, stride = f"layer{s}.{i}", 2 if i == 0 else 1
            y = normed(conv2d(normed(x, w, f"{n}.bn1"), w[f"{n}.conv1.weight"], padding=1), w, f"{n}.bn2")
            y = conv2d(prelu(y, w[f"{n}.prelu.weight"]), w[f"{n}.conv2.weight"], stride=stride, padding=1)
            past = normed(conv2d(x, w[f"{n}.downsample.0.weight"], stride=2), w, f"{n}.downsample.1") if i == 0 else x
            x = normed(y, w, f"{n}.bn3") + past
    return normed(linear(normed(x, w, "bn2").flatten(1), w["fc.weight"], w["fc.bias"]), w, "features")


def run_evolve(x: Tensor, w: dict[str, Tensor], units: tuple[int, ...], first: int) -> Tensor:
    x = prelu(normed(conv2d(x, w["input_layer.0.weight"], padding=1), w, "input_layer.1"), w["input_layer.2.weight"])
    starts = {sum(units[:s]): first if s == 0 else 2 for s in range(4)}
    for n in range(sum(units)):
        r, c, stride = f"body.{n}.res_layer", f"body.{n}.shortcut_layer", starts.get(n, 1)
        y = prelu(conv2d(normed(x, w, f"{r}.0"), w[f"{r}.1.weight"], padding=1), w[f"{r}.2.weight"])
        y = normed(conv2d(y, w[f"{r}.3.weight"], stride=stride, padding=1), w, f"{r}.4")
        if f"{c}.0.weight" in w:
            x = y + normed(conv2d(x, w[f"{c}.0.weight"], stride=stride), w, f"{c}.1")
        else:
            x = y + nn.MaxPool2d(1, stride)(x)
    x = linear(normed(x, w, "output_layer.0").flatten(1), w["output_layer.3.weight"], w["output_layer.3.bias"])
    return normed(x, w, "output_layer.4")


@pytest.mark.parametrize("wrapped", ["", "module.", "module.backbone."])
def test_insightface_weights(wrapped: str) -> None:
    torch.manual_seed(0)
    state = insight(UNITS, 2)
    network = from_state({wrapped + k: v for k, v in state.items()})
    x = torch.randn(2, 3, 32, 32)
    assert network.size == 32
    torch.testing.assert_close(network(x), run_insight(x, state, UNITS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("first", [1, 2])
def test_evolve_weights(first: int) -> None:
    torch.manual_seed(1)
    state = evolve(UNITS, 2)
    network = from_state(state | {"logits.weight": torch.zeros(8, 512)}, first)
    x = torch.randn(2, 3, 16 * first, 16 * first)
    assert network.size == 16 * first
    torch.testing.assert_close(network(x), run_evolve(x, state, UNITS, first), rtol=1e-4, atol=1e-4)


def test_sizes_of_the_published_networks() -> None:
    def parameters(network: nn.Module) -> int:
        return sum(p.numel() for p in network.parameters())

    with torch.device("meta"):
        assert parameters(IResNet(insight=False, grid=5, first_stride=1)) == 37_283_520  # LFAN's IR-50 on 40 pixels
        assert IResNet(insight=False, grid=5, first_stride=1).size == 40
        assert IResNet().size == 112


def test_frozen_and_blind_to_the_batch() -> None:
    torch.manual_seed(2)
    network = from_state(evolve(UNITS, 1), 1)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    x = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(network(x)[1:2], network(x[1:2]), rtol=1e-5, atol=1e-5)
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_other_files_are_refused_by_name() -> None:
    with pytest.raises(BadFeatures, match=r"no weights of an IR network: encoder\.weight"):
        from_state({"encoder.weight": torch.zeros(3)})
    state = evolve(UNITS, 1)
    with pytest.raises(BadFeatures, match=r"units\.0\.body\.5\.fc1\.weight"):
        from_state(state | {"body.0.res_layer.5.fc1.weight": torch.zeros(4, 64, 1, 1)})
    del state["body.1.res_layer.4.bias"]
    with pytest.raises(BadFeatures, match=r"1 weights are missing.*units\.1\.body\.4\.bias"):
        from_state(state)
