"""What differs between processors: instruction sets, threads, caches. Gradients must not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from affuse.layers.iresnet import IResNet
from affuse.layers.pointwise import Pointwise
from tests.models.gradients import cases, convolutions, make

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "as it is": {},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "two threads": {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "0"},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_gradients_of_convolutions_are_right_on_every_processor(setting):
    """In a process of its own: what overruns a buffer may crash long after."""
    env = os.environ | {"OMP_NUM_THREADS": "1"} | SETTINGS[setting]
    done = subprocess.run(
        [sys.executable, "-m", "tests.models.gradients"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"with {setting}, after {done.stdout.splitlines()[-1:]}: {done.stderr[-2000:]}"
    assert len(done.stdout.splitlines()) == len(cases()) > 8


def test_no_model_holds_a_strided_convolution_of_one_pixel():
    """Its weight gradient writes beyond its buffer on some processors: layers/pointwise.py takes its place."""
    nets = [make(name, spec) for name, spec in cases()] + [IResNet((1, 1, 1, 1)), IResNet((1, 1, 1, 1), insight=False)]
    found = [c for net in nets for c in convolutions(net)]
    assert len(found) > 50
    assert [c for c in found if max(c.kernel_size) == 1 and max(c.stride) > 1] == []


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(48, 48), (7, 5), (1, 9)])
def test_pixels_chosen_first_give_a_convolutions_numbers_and_weights(stride, size):
    pointwise = Pointwise(3, 12, stride).double()
    plain = torch.nn.Conv2d(3, 12, 1, stride, bias=False).double()
    plain.load_state_dict(pointwise.state_dict())
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(pointwise(x), plain(x))
    for net in (pointwise, plain):
        net(x).square().sum().backward()
    torch.testing.assert_close(pointwise.weight.grad, plain.weight.grad)
