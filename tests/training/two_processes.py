"""Run under torchrun: train on vectors in float64 with each balancer named; write the first process' weights."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from affuse.core import io
from affuse.corpora.manifest import Corpus
from affuse.training.distributed import finish
from tests.training.test_balancing import eager
from tests.training.test_loop import make_trainer

if __name__ == "__main__":
    torch.set_num_threads(1)
    corpus, out = Corpus.open(sys.argv[1]), Path(sys.argv[2])
    for name in sys.argv[3:] or ["none"]:
        trainer = make_trainer(corpus, out / name / "run", accumulate=1, **eager(name))
        trainer.run()
        if trainer.rank == 0:
            io.write_tensors(out / name / "weights.safetensors", trainer.model.state_dict())
    finish()
