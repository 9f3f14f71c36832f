from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from affuse.core.errors import BadConfig
from affuse.layers import xlstm
from affuse.layers.xlstm import MLSTM, SLSTM, XLSTM, Memory, chunkwise, empty, recurrent

BOTH = (("mlstm",), ("mlstm", "slstm"))


def inputs(steps: int, dtype: torch.dtype = torch.float64, spread: float = 1.0) -> list[Tensor]:
    """q, k, v [2, 3, T, 8] and the logarithms of both gates [2, 3, T], with gradients."""
    torch.manual_seed(steps)
    q, k, v = (torch.randn(2, 3, steps, 8, dtype=dtype) for _ in range(3))
    i, f = (torch.randn(2, 3, steps, dtype=dtype) * spread for _ in range(2))
    return [x.requires_grad_() for x in (q, k, v, i, F.logsigmoid(f).detach())]


@pytest.mark.parametrize("steps", [1, 2, 63, 64, 65, 128, 200, 1000])
def test_chunks_equal_the_recurrence(steps):
    given = inputs(steps)
    found, after = chunkwise(*given, empty(given[0]))
    expected, last = recurrent(*given, empty(given[0]))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    unscaled = [m.c * m.m[..., None, None].exp() for m in (after, last)]
    torch.testing.assert_close(*unscaled, rtol=1e-10, atol=1e-10)
    way = torch.randn_like(found)
    gradients = [torch.autograd.grad((h * way).sum(), given) for h in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8 * float(other.abs().max() + 1))


def test_chunks_equal_the_recurrence_in_float32():
    given = inputs(500, torch.float32)
    found, _ = chunkwise(*given, empty(given[0]))
    expected, _ = recurrent(*given, empty(given[0]))
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max().clamp_min(1)


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_the_size_of_a_chunk_changes_nothing(size):
    given = inputs(100)
    found, _ = chunkwise(*given, empty(given[0]), chunk=size)
    torch.testing.assert_close(found, recurrent(*given, empty(given[0]))[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("over", [chunkwise, recurrent])
def test_the_recurrence_is_that_of_the_equations_without_a_scale(over):
    q, k, v, i, f = inputs(20)
    c, n = torch.zeros(2, 3, 8, 8, dtype=q.dtype), torch.zeros(2, 3, 8, dtype=q.dtype)
    for t in range(20):
        c = f[..., t, None, None].exp() * c + i[..., t, None, None].exp() * k[..., t, :, None] * v[..., t, None, :]
        n = f[..., t, None].exp() * n + i[..., t, None].exp() * k[..., t, :]
    h = (q[..., -1, None, :] @ c).squeeze(-2) / (q[..., -1, :] * n).sum(-1, keepdim=True).abs().clamp_min(1)
    torch.testing.assert_close(over(q, k, v, i, f, empty(q))[0][..., -1, :], h, rtol=1e-10, atol=1e-10)


def test_the_result_does_not_depend_on_the_scale():
    given = inputs(70)
    shifted = Memory(empty(given[0]).c, empty(given[0]).m + 3.0)
    torch.testing.assert_close(chunkwise(*given, shifted)[0], chunkwise(*given, empty(given[0]))[0])


@pytest.mark.parametrize("over", [chunkwise, recurrent])
def test_extreme_gates_stay_finite(over):
    given = inputs(130, torch.float32, spread=60.0)
    found, _ = over(*given, empty(given[0]))
    found.sum().backward()
    assert found.isfinite().all()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in given)


def test_memory_is_linear_in_time():
    """What autograd keeps: twice the steps, twice the numbers."""
    kept = []
    for steps in (512, 1024):
        total = 0

        def pack(x: Tensor) -> Tensor:
            nonlocal total
            total += x.numel()
            return x

        given = inputs(steps, torch.float32)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            chunkwise(*given, empty(given[0]))
        kept.append(total)
    assert kept[1] < 2.1 * kept[0]


@pytest.mark.parametrize("kinds", BOTH)
def test_both_ways_is_the_reversed_sequence_of_the_other_direction(kinds):
    torch.manual_seed(0)
    net = XLSTM(16, kinds=kinds).double().eval()
    for block in net.blocks:  # both cells alike, and W for both directions alike: reversing the input reverses all
        block.cells[1].load_state_dict(block.cells[0].state_dict())
        half = block.down.weight.shape[1] // 2
        block.down.weight.data[:, half:] = block.down.weight.data[:, :half]
    x, lengths = torch.randn(3, 9, 16, dtype=torch.float64), (9, 5, 1)
    mask = torch.arange(9) < torch.tensor(lengths).unsqueeze(1)
    turned = x.clone()
    for row, n in enumerate(lengths):
        turned[row, :n] = x[row, :n].flip(0)
    found, other = net(x, mask), net(turned, mask)
    for row, n in enumerate(lengths):
        torch.testing.assert_close(other[row, :n], found[row, :n].flip(0))


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("kinds", BOTH)
def test_steps_without_content_are_as_if_cut_out(kinds, both):
    torch.manual_seed(0)
    net = XLSTM(16, kinds=kinds, both=both).eval()
    x, mask = torch.randn(2, 80, 16), torch.rand(2, 80) < 0.6
    found = net(x, mask)
    other = net(torch.where(mask.unsqueeze(-1), x, torch.full_like(x, 1e3)), mask)
    torch.testing.assert_close(other, found)
    assert not found[~mask].any()
    for row in range(2):
        alone = net(x[row : row + 1, mask[row]], torch.ones(1, int(mask[row].sum()), dtype=torch.bool))
        torch.testing.assert_close(found[row, mask[row]], alone[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kinds", BOTH)
def test_a_step_at_a_time_is_the_whole_sequence(kinds):
    torch.manual_seed(0)
    net = XLSTM(16, kinds=kinds, both=False).double().eval()
    x = torch.randn(2, 100, 16, dtype=torch.float64)
    states, found = net.begin(), []
    for t in range(100):
        h, states = net.step(x[:, t], states)
        found.append(h)
    torch.testing.assert_close(torch.stack(found, 1), net(x, torch.ones(2, 100, dtype=torch.bool)))


@pytest.mark.parametrize("kinds", BOTH)
def test_a_forward_network_never_sees_what_comes_later(kinds):
    torch.manual_seed(0)
    net = XLSTM(16, kinds=kinds, both=False).eval()
    x, mask = torch.randn(1, 70, 16), torch.ones(1, 70, dtype=torch.bool)
    later = x.clone()
    later[:, 66:] += 1
    torch.testing.assert_close(net(later, mask)[:, :66], net(x, mask)[:, :66])


def test_a_network_that_reads_both_ways_has_no_steps():
    with pytest.raises(BadConfig, match="later"):
        XLSTM(16).begin()


@pytest.mark.parametrize("kinds", BOTH)
def test_a_gradient_reaches_every_tensor(kinds):
    torch.manual_seed(0)
    net = XLSTM(16, kinds=(*kinds, *kinds), dropout=0.1).train()
    found = net(torch.randn(2, 12, 16), torch.ones(2, 12, dtype=torch.bool))
    (found * torch.randn_like(found)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("kind", [MLSTM, SLSTM])
def test_the_memory_keeps_its_digits_under_autocast(kind, monkeypatch):
    """Sums of exponents in half precision are worth nothing after some hundred steps."""
    torch.manual_seed(0)
    sizes = (16, 2, 2, 4) if kind is MLSTM else (16, 2, 4)
    net, x, seen = kind(*sizes).eval(), torch.randn(2, 30, 16), []
    if kind is MLSTM:
        monkeypatch.setattr(xlstm, "chunkwise", lambda *given: seen.extend(given[:5]) or chunkwise(*given))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.is_autocast_enabled("cpu")
        _, (_, state) = net(x)
    assert len(seen) == 5 * (kind is MLSTM)
    assert all(part.dtype == torch.float32 for part in (*seen, *state))
    _, (_, whole) = net(x)
    assert (state[0] - whole[0]).abs().max() < 0.05 * whole[0].abs().max()


def test_the_slstm_is_that_of_the_equations_without_a_scale():
    """Beck et al., eq. 8-17, step by step, every gate by its name."""
    torch.manual_seed(0)
    net = SLSTM(6, 2, 3).double().eval()
    x = torch.randn(2, 12, 6, dtype=torch.float64)
    own, _ = net.conv(x, net.conv.begin(x))
    gate, inner = net.gates(own).chunk(2, -1), net.inputs(x).chunk(2, -1)
    h, c, n = (torch.zeros(2, 2, 3, dtype=x.dtype) for _ in range(3))
    for t in range(12):
        more = torch.stack([h[:, k] @ net.recurrent[k] for k in range(2)], 1).chunk(4, -1)
        i, f, z, o = (p[:, t].view(2, 2, 3) + r for p, r in zip((*gate, *inner), more, strict=True))
        c = torch.sigmoid(f) * c + i.exp() * z.tanh()
        n = torch.sigmoid(f) * n + i.exp()
        h = torch.sigmoid(o) * c / n
    centred = h - h.mean(-1, keepdim=True)
    expected = (centred / (h.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()).flatten(1) * net.norm.weight
    torch.testing.assert_close(net(x)[0][:, -1], expected)


def test_the_mlstm_layer_is_that_of_the_figure():
    """Beck et al., fig. 10: what each path reads, with the recurrence of the equations in the middle."""
    torch.manual_seed(0)
    net = MLSTM(6, 2, 2, 3).double().eval()
    torch.nn.init.normal_(net.gates.weight, std=0.3)
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    a, z = net.up(x)[..., :12], net.up(x)[..., 12:]
    c = F.silu(F.conv1d(F.pad(a.mT, (2, 0)), net.conv.conv.weight, net.conv.conv.bias, groups=12).mT)

    def heads(part: Tensor) -> Tensor:
        return part.unflatten(-1, (2, 6)).transpose(1, 2)

    q, k, v = (p @ torch.block_diag(*layer.weight) for p, layer in ((c, net.query), (c, net.key), (a, net.value)))
    gates = net.gates(torch.cat([q, k, v], -1)).mT
    h, _ = recurrent(heads(q), heads(k) / 6**0.5, heads(v), gates[:, :2], F.logsigmoid(gates[:, 2:]), empty(heads(q)))
    normed = F.layer_norm(h.transpose(1, 2), (6,)).flatten(-2)
    torch.testing.assert_close(net(x)[0], (normed * net.norm.weight + net.skip * c) * F.silu(z))


def test_forget_gates_start_nearly_open():
    """A network that forgets at once learns nothing of long sequences."""
    net = XLSTM(16)
    gates = net.blocks[0].cells[0].gates
    assert torch.sigmoid(gates.bias[net.blocks[0].cells[0].heads :]).min() > 0.95
    assert not gates.weight.any()


@pytest.mark.parametrize("options", [{"heads": 3}, {"heads": 16}, {"kinds": ()}, {"kinds": ("gru",)}, {"kernel": 0}])
def test_what_does_not_exist_is_refused(options):
    with pytest.raises(BadConfig):
        XLSTM(16, **options)


def test_an_empty_row_gives_zeros():
    net = XLSTM(16).eval()
    assert not net(torch.randn(1, 5, 16), torch.zeros(1, 5, dtype=torch.bool)).any()


def test_time_has_no_loop():
    """The steps of a chunk are computed at once: as many operations for 64 steps as for 2."""
    counted = []
    for steps in (2, xlstm.CHUNK):
        with torch.profiler.profile() as profile:
            chunkwise(*inputs(steps), empty(inputs(steps)[0]))
        counted.append(sum(event.count for event in profile.key_averages()))
    assert counted[1] <= counted[0] + 2
