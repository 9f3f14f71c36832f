"""On-the-fly gradient modulation with generalisation enhancement."""

from __future__ import annotations

from affuse.balance.ogm import OGM

CARD = {
    "summary": "OGM with Gaussian noise of the size of the gradients",
    "source": "Peng et al., Balanced Multimodal Learning via On-the-fly Gradient Modulation, CVPR 2022",
    "entry": "OGMGE",
    "random": True,
    "licence": "Apache-2.0",
}


class OGMGE(OGM):
    """g_s <- k_s g_s + n, n ~ N(0, std(g_s)^2) per parameter tensor, std of the gradient before it is scaled."""

    noise = True
