"""The recipe on docs/frames.md with the published features: it can be read, and has the published size."""

from __future__ import annotations

import re
from pathlib import Path

from affuse.core.config import load_recipe
from affuse.core.labels import SPACES
from affuse.core.tasks import Task
from affuse.core.types import StreamSpec
from affuse.features.extractor import make_extractor
from affuse.models.build import Architecture
from affuse.models.model import Model

PAGE = Path(__file__).resolve().parents[2] / "docs" / "frames.md"
SIZES = {"arcface": ("vision", 512), "vggish": ("audio", 128), "words": ("text", 768)}


def test_the_published_recipe(tmp_path):
    path = tmp_path / "published.yaml"
    path.write_text(re.search(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)[1])
    recipe = load_recipe(str(path))
    specs = []
    for name, stream in recipe.streams.items():
        options = dict(stream.extractor)
        made = make_extractor(options.pop("name", name), options)
        modality, width = SIZES[name]
        specs.append(StreamSpec(name, modality, (width,), 25.0))
        if name != "words":  # BERT itself is not at hand
            assert (made.spec.modality, made.spec.shape, made.spec.rate) == (modality, (width,), 25.0)
    parts = Architecture({n: s.encoder for n, s in recipe.streams.items()}, recipe.fusion, (), False)
    model = Model(parts, specs, {"emotion": Task("emotion", SPACES["meld-7"], "frame")})
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 5_002_503
