"""Encoders of the raw waveform on real speech: docs/results/waveform-ravdess.md, by affuse bench.

python benchmarks/waveform.py [--out runs/waveform] [--workers 1] [--only ravdess/mlstm ...] [--table]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from results import corpus_ravdess_audio
from suite import run_suite

if __name__ == "__main__":
    sys.exit(run_suite("waveform", {"ravdess": corpus_ravdess_audio}, __doc__))
