"""Improved residual networks for face recognition (IR-18 to IR-100).

Deng et al., "ArcFace", CVPR 2019: units of BN, 3x3 convolution, PReLU, 3x3 convolution with the stride, BN. Weights of
two families are read. InsightFace's iresnet has one more BN before the PReLU, and a 1x1 shortcut in the first unit of
every stage; in face.evoLVe's IR the shortcut takes every other pixel where the width stays.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import reduce
from itertools import accumulate

from torch import Tensor, nn

from affuse.core.errors import BadFeatures
from affuse.layers.pointwise import conv2d

WIDTHS = (64, 128, 256, 512)
OUTER = re.compile(r"^((module|backbone|model)\.)+")  # prefixes that training code adds
IGNORED = re.compile(r"^logits\.|num_batches_tracked$")  # a classifier for training, counters
INSIGHT = (
    (r"^conv1\.", "stem.0."), (r"^bn1\.", "stem.1."), (r"^prelu\.", "stem.2."),
    (r"^bn2\.", "head.0."), (r"^fc\.", "head.3."), (r"^features\.", "head.4."),
    (r"\.bn1\.", ".body.0."), (r"\.conv1\.", ".body.1."), (r"\.bn2\.", ".body.2."), (r"\.prelu\.", ".body.3."),
    (r"\.conv2\.", ".body.4."), (r"\.bn3\.", ".body.5."), (r"\.downsample\.", ".shortcut."),
)  # fmt: skip
EVOLVE = (
    (r"^input_layer\.", "stem."), (r"^output_layer\.", "head."), (r"^body\.", "units."),
    (r"\.res_layer\.", ".body."), (r"\.shortcut_layer\.", ".shortcut."),
)  # fmt: skip


class Unit(nn.Module):
    """x [N, C_in, H, W] -> [N, C_out, H / stride, W / stride]: `body` + shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, between: bool, project: bool) -> None:
        super().__init__()
        self.stride = stride
        first, second = conv2d(inputs, outputs, 3, 1), conv2d(outputs, outputs, 3, stride)
        middle = [nn.BatchNorm2d(outputs)] if between else []
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs), first, *middle, nn.PReLU(outputs), second, nn.BatchNorm2d(outputs)
        )
        self.shortcut = nn.Sequential(conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)) if project else None

    def forward(self, x: Tensor) -> Tensor:
        identity = x[:, :, :: self.stride, :: self.stride] if self.shortcut is None else self.shortcut(x)
        return self.body(x) + identity


class IResNet(nn.Module):
    """Pictures [N, 3, S, S] with S = 8 * `first_stride` * `grid` -> embeddings [N, dim].

    `units` per stage: (3, 4, 14, 3) is IR-50. `insight`: InsightFace's units, else face.evoLVe's. `first_stride` 1 is
    the variant for small pictures (40 pixels, grid 5).
    """

    def __init__(
        self,
        units: tuple[int, ...] = (3, 4, 14, 3),
        insight: bool = True,
        grid: int = 7,
        dim: int = 512,
        first_stride: int = 2,
    ) -> None:
        super().__init__()
        self.size, self.dim = 8 * first_stride * grid, dim
        self.stem = nn.Sequential(conv2d(3, 64, 3, 1), nn.BatchNorm2d(64), nn.PReLU(64))
        self.units, width = nn.Sequential(), 64
        for stage, (count, outputs) in enumerate(zip(units, WIDTHS, strict=True)):
            for i in range(count):
                stride = (first_stride if stage == 0 else 2) if i == 0 else 1
                self.units.append(Unit(width, outputs, stride, insight, width != outputs or (insight and i == 0)))
                width = outputs
        flat = nn.Sequential(nn.BatchNorm2d(width), nn.Dropout(0.4), nn.Flatten())
        self.head = nn.Sequential(*flat, nn.Linear(width * grid * grid, dim), nn.BatchNorm1d(dim))

    def forward(self, x: Tensor) -> Tensor:
        """x [N, 3, S, S] in -1..1 -> [N, dim]."""
        return self.head(self.units(self.stem(x)))


def from_state(state: Mapping[str, Tensor], first_stride: int = 2) -> IResNet:
    """The network of a state dict, in eval mode without gradients.

    Names: InsightFace's arcface_torch (`layer1.0.bn1`, `fc`, `features`) or face.evoLVe (`body.0.res_layer.0`,
    `output_layer`), with or without a prefix `module.`, `backbone.` or `model.`; depth, grid and width follow from the
    shapes. Raises BadFeatures with the names that do not fit.
    """
    plain = {OUTER.sub("", k): v for k, v in state.items()}
    plain = {k: v for k, v in plain.items() if not IGNORED.search(k)}
    insight = any(k.startswith("layer1.") for k in plain)
    named = _renamed(_numbered(plain) if insight else plain, INSIGHT if insight else EVOLVE)
    depth = Counter(len(v) for k, v in named.items() if re.fullmatch(r"units\.\d+\.body\.1\.weight", k))
    if "head.3.weight" not in named or set(depth) != set(WIDTHS):
        raise BadFeatures(
            f"these are no weights of an IR network: {', '.join(list(state)[:3])}, ...",
            "give an iresnet of InsightFace (arcface_torch) or an IR of face.evoLVe, without squeeze and excitation",
        )
    dim, flat = named["head.3.weight"].shape
    grid = round((flat / WIDTHS[-1]) ** 0.5)
    network = IResNet(tuple(depth[w] for w in WIDTHS), insight, grid, dim, first_stride)
    _fill(network, named)
    return network.eval().requires_grad_(False)


def _renamed(state: Mapping[str, Tensor], rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    return {reduce(lambda name, rule: re.sub(rule[0], rule[1], name), rules, key): v for key, v in state.items()}


def _numbered(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """InsightFace numbers units within stages, `layer2.0`; here numbers run through all stages, `units.3`."""
    found = [(int(m[1]), int(m[2])) for key in state if (m := re.match(r"layer([1-4])\.(\d+)\.", key))]
    counts = [1 + max((unit for stage, unit in found if stage == s), default=-1) for s in (1, 2, 3, 4)]
    before = [0, *accumulate(counts)]

    def number(match: re.Match[str]) -> str:
        return f"units.{before[int(match[1]) - 1] + int(match[2])}."

    return {re.sub(r"^layer([1-4])\.(\d+)\.", number, k): v for k, v in state.items()}


def _fill(network: IResNet, named: Mapping[str, Tensor]) -> None:
    wanted = {k: v.shape for k, v in network.state_dict().items() if not IGNORED.search(k)}
    both = wanted.keys() & named.keys()
    wrong = list(wanted.keys() ^ named.keys()) + [k for k in both if wanted[k] != named[k].shape]
    if wrong:
        raise BadFeatures(
            f"{len(wrong)} weights are missing, unknown or of another shape: {', '.join(sorted(wrong)[:3])}",
            "give the complete weights of one IR network",
        )
    network.load_state_dict(dict(named), strict=False)
