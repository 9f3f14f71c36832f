"""An extractor by its name, and the check of what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from affuse.core import registry
from affuse.core.config import extractor_of
from affuse.core.errors import BadFeatures
from affuse.core.types import Feature


def make_extractor(name: str, parameters: Mapping[str, Any] | None = None) -> Any:
    """The extractor `name` (or the one that the parameters name) with its parameters checked."""
    kind, options = extractor_of(name, parameters or {})
    return registry.build("extractors", kind, **registry.resolve("extractors", kind, options, name))


def checked(feature: Feature, name: str) -> Feature:
    """The feature itself; BadFeatures if an extractor returned numbers that are not finite."""
    if feature.values.dtype.kind == "f" and not np.isfinite(feature.values).all():
        raise BadFeatures(f"extractor '{name}' returned numbers that are not finite", "report the clip as a defect")
    return feature
