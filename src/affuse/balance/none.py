"""Plain joint training."""

from __future__ import annotations

from affuse.balance.balancer import Balancer

CARD = {
    "summary": "joint training on the fused prediction alone",
    "source": "common practice",
    "entry": "Plain",
    "licence": "Apache-2.0",
}


class Plain(Balancer):
    """L = L_fused."""
