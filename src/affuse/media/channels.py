"""Channels to mono: their mean, unless that would lose what they hold."""

from __future__ import annotations

import numpy as np

SILENT = 1e-7  # mean square (-70 dB of full scale) in the loudest window of what holds no sound
DEAF = 1e-5  # of the loudest window: a channel below it throughout holds nothing
QUIET = 1e-3  # of the loudest window: quieter ones are not compared
CANCELLED = 1 / 3  # of the power that the mean of unrelated channels has
OFTEN = 0.05  # share of the windows in which channels may cancel


def level(power: np.ndarray) -> float:
    """Mean square of the loudest channel in its loudest window, from mean products of channels [T, C, C]."""
    return float(np.diagonal(power, axis1=1, axis2=2).max(initial=0.0))


def weigh(power: np.ndarray) -> tuple[tuple[float, ...], str]:
    """(weights of the channels [C], why) from their mean products [T, C, C] in T windows; ((), "") for the plain mean.

    Channels that hold nothing do not count. Where the mean has less than CANCELLED of the power that it would have of
    unrelated channels, the channels cancel; if they do so in more than OFTEN of the windows, the turned one of two is
    turned back, or else one channel is taken alone: whatever loses the least, and less than half of what the mean does.
    """
    own = np.diagonal(power, axis1=1, axis2=2)
    count = own.shape[1]
    if count == 1 or level(power) <= SILENT:
        return (), ""
    live = np.flatnonzero(own.max(0) > DEAF * level(power))
    alone = np.eye(count)[live[np.argsort(-own.sum(0)[live], kind="stable")]]  # the loudest first
    turned = [(alone[0] - alone[1]) / 2] if len(live) == 2 else []
    ways = np.stack([alone.mean(0), *turned, *alone])
    total = own.sum(1)
    compared = total > QUIET * total.max()
    kept = np.einsum("kc,tcd,kd->tk", ways, power[compared], ways)
    lost = (kept < CANCELLED * total[compared, None] / len(live) ** 2).mean(0)
    best = int(lost.argmin()) if lost[0] > OFTEN and lost.min() < lost[0] / 2 else 0
    if best == 0 and len(live) == count:
        return (), ""
    return tuple(float(w) for w in ways[best]), _why(ways[best], float(lost[0]), best > 0)


def _why(weights: np.ndarray, lost: float, cancelling: bool) -> str:
    """The note on weights that are not the plain mean."""
    used = ", ".join(str(k + 1) for k in np.flatnonzero(weights))
    if not cancelling:
        return f"the sound is in channel {used} of {len(weights)}: the empty ones do not count"
    cancel = f"the channels of the sound cancel each other in {lost:.0%} of it"
    turned = f"the polarity of channel {int(weights.argmin()) + 1} was turned back"
    return f"{cancel}: {turned}" if weights.min() < 0 else f"{cancel}: of {len(weights)} channels only {used} is heard"


def mono(x: np.ndarray, weights: tuple[float, ...]) -> np.ndarray:
    """Channels float32 [n, C] to one [n]; their mean where `weights` are those of another number of channels."""
    if x.shape[1] == len(weights):
        x = x * np.array(weights, np.float32)
        return np.asarray(x.sum(axis=1, dtype=np.float32))
    return np.asarray(x.mean(axis=1, dtype=np.float32))
