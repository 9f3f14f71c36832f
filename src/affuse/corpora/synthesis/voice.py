"""A babbling voice: glottal pulses through formant resonators, with the prosody of an emotion.

Source-filter synthesis after Klatt (1980); the prosodic tendencies follow Juslin & Laukka (2003).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.signal import butter, lfilter, sosfilt

RATE = 16000
Array = np.ndarray

# Columns: pitch (semitones above the speaker's own), pitch range (semitones), drift over the utterance
# (semitones), syllables per second, loudness (dB), tremor at 6 Hz (semitones), breath (share of noise),
# creak (share of irregular periods), brightness (high-frequency emphasis 0..1).
PROSODY: dict[str, tuple[float, ...]] = {
    "neutral": (0.0, 1.0, -1.0, 4.0, 0.0, 0.0, 0.04, 0.04, 0.45),
    "happy": (5.0, 4.5, 1.0, 4.6, 4.0, 0.0, 0.03, 0.02, 0.70),
    "sad": (-2.0, 0.8, -3.5, 2.6, -8.0, 0.1, 0.16, 0.08, 0.15),
    "angry": (3.0, 3.0, -2.0, 5.4, 9.0, 0.0, 0.05, 0.10, 0.95),
    "fear": (7.0, 1.5, 0.0, 5.2, 1.0, 1.1, 0.16, 0.06, 0.50),
    "disgust": (-4.0, 1.5, -2.0, 3.0, -1.0, 0.0, 0.06, 0.35, 0.30),
    "surprise": (6.0, 3.0, 8.0, 3.8, 4.0, 0.0, 0.06, 0.02, 0.60),
}
_SPREAD = np.array([1.0, 0.5, 1.0, 0.4, 1.5, 0.15, 0.02, 0.03, 0.08])

# First three formants in Hz of a, e, i, o, u (Peterson & Barney, 1952, men); the fourth stays.
_VOWELS = ((730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240))
_BANDWIDTHS = (80.0, 100.0, 140.0, 220.0)


@dataclass(frozen=True)
class Voice:
    """Who speaks: mean pitch in Hz and the scale of all formants (shorter vocal tract: above 1)."""

    pitch: float = 150.0
    formants: float = 1.07


def draw_voice(rng: np.random.Generator, cues: float) -> Voice:
    """A random voice; `cues` 0..1 is how far it departs from the average voice."""
    high = rng.random() < 0.5
    octaves = (0.4 if high else -0.4) + rng.uniform(-0.2, 0.2)
    scale = (0.09 if high else -0.06) + rng.uniform(-0.03, 0.03)
    return Voice(float(150 * 2 ** (cues * octaves)), float(1.07 + cues * scale))


def speak(
    voice: Voice,
    expression: Mapping[str, float],
    seconds: float,
    fps: float,
    rng: np.random.Generator,
    noise: float = 0.0,
) -> tuple[Array, Array]:
    """Speech-like sound float32 [seconds * 16000] and the mouth's opening 0..1 [seconds * fps].

    `expression` weighs the rows of PROSODY; `noise` 0..1 scatters them and adds background noise (30 to 0 dB SNR).
    """
    prosody = sum((w * np.array(PROSODY[name]) for name, w in expression.items()), np.zeros(9))
    prosody = prosody + (0.5 + 2.5 * noise) * rng.standard_normal(9) * _SPREAD
    pitch, span, drift, tempo, loudness, tremor, breath, creak, bright = prosody.tolist()
    n, frames = round(seconds * RATE), max(1, round(seconds * fps))
    time = np.arange(n) / RATE
    onsets, widths = _syllables(seconds, max(tempo, 1.5), rng)
    bumps = _bumps(time, onsets, widths)
    envelope = bumps.max(axis=0)
    contour = pitch + drift * (time / seconds - 0.5) + tremor * np.sin(2 * np.pi * 6 * time)
    accents = np.interp(time, onsets + widths / 2, max(span, 0.1) * rng.standard_normal(len(onsets)))
    source = _glottis(voice.pitch * 2 ** ((contour + accents) / 12), max(creak, 0.0), rng)
    source += max(breath, 0.0) * rng.standard_normal(n)
    sound = _tract(source, voice.formants, bumps, rng) * envelope + _consonants(time, onsets, rng)
    sound = lfilter([1, -0.75 * float(np.clip(bright, 0, 1))], [1], sound)
    level = 0.035 * 10 ** (float(np.clip(loudness, -14, 13)) / 20)
    sound *= level / (np.sqrt(np.mean(sound**2)) + 1e-9)
    floor = 10 ** (-30 * (1 - noise) / 20) if noise > 0 else 10**-2.5
    sound += 0.035 * floor * rng.standard_normal(n)
    mouth = np.interp((np.arange(frames) + 0.5) / fps, time, envelope)
    return np.tanh(sound).astype(np.float32), mouth.astype(np.float32)


def _syllables(seconds: float, tempo: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Onsets and lengths in seconds of the syllables that fit, with a breath before and after."""
    lengths = rng.uniform(0.75, 1.3, max(2, int(2 * seconds * tempo))) / tempo
    onsets = min(0.12, 0.1 * seconds) + np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    fits = onsets + lengths < seconds - min(0.12, 0.1 * seconds)
    fits[0] = True
    return onsets[fits], np.minimum(lengths[fits], seconds - onsets[fits])


def _bumps(time: Array, onsets: Array, widths: Array) -> Array:
    """Loudness of every syllable over time [S, n]: a raised cosine with a steep start."""
    share = np.clip((time - onsets[:, None]) / widths[:, None], 0, 1)
    return np.sin(np.pi * share**0.75) ** 1.3 * (share < 1)


def _glottis(frequency: Array, creak: float, rng: np.random.Generator) -> Array:
    """Derivative of Rosenberg's glottal pulse, with 1 % jitter and, for `creak`, alternating weak periods."""
    wander = np.interp(np.arange(len(frequency)), np.arange(0, len(frequency) + 160, 160), _walk(len(frequency), rng))
    phase = np.cumsum(frequency * (1 + 0.01 * wander)) / RATE
    period, share = phase.astype(int), phase % 1.0
    opening = np.clip(share / 0.6, 0, 1)
    flow = np.where(share < 0.6, 2 * opening - 3 * opening**2, 0.0)
    strength = 1 - np.clip(2.5 * creak, 0, 0.85) * rng.random(int(period[-1]) + 1)
    return 3 * flow * strength[period]


def _walk(n: int, rng: np.random.Generator) -> Array:
    return rng.standard_normal(len(range(0, n + 160, 160)))


def _tract(source: Array, scale: float, bumps: Array, rng: np.random.Generator) -> Array:
    """Sound after the vocal tract: one filtered version per vowel, faded into each other by the syllables."""
    chosen = rng.integers(len(_VOWELS), size=len(bumps))
    sound = np.zeros_like(source)
    for vowel in np.unique(chosen):
        formants = np.array([*_VOWELS[vowel], 3600.0]) * scale
        filtered = sosfilt(_resonators(formants), source)
        share = bumps[chosen == vowel].sum(axis=0) / np.maximum(bumps.sum(axis=0), 1e-3)
        sound += share * filtered / (np.std(filtered) + 1e-9)
    return sound


def _resonators(formants: Array) -> Array:
    """Second-order sections [4, 6] with unit gain at 0 Hz, one per formant (Klatt's cascade)."""
    radius = np.exp(-np.pi * np.array(_BANDWIDTHS) / RATE)
    b = 2 * radius * np.cos(2 * np.pi * np.minimum(formants, 0.47 * RATE) / RATE)
    c = -(radius**2)
    zero, one = np.zeros(4), np.ones(4)
    return np.stack([1 - b - c, zero, zero, one, -b, -c], axis=1)


def _consonants(time: Array, onsets: Array, rng: np.random.Generator) -> Array:
    """Short bursts of hiss at some of the onsets."""
    loud = rng.uniform(0, 0.5, len(onsets)) * (rng.random(len(onsets)) < 0.7)
    shape = (loud[:, None] * np.exp(-(((time - onsets[:, None]) / 0.022) ** 2))).sum(axis=0)
    band = butter(2, (2200, 6500), "bandpass", fs=RATE, output="sos")
    return np.asarray(shape * sosfilt(band, rng.standard_normal(len(time))))
