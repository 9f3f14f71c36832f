"""Tasks per frame: padding changes no loss, windows are made quickly, a long recording counts each frame once."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import pad

from affuse.core.config import make_recipe
from affuse.corpora.manifest import write_corpus
from affuse.models.predict import predict
from affuse.stores.store import import_arrays
from affuse.training import binding
from affuse.training.loop import Trainer
from affuse.training.train import make_model

CPU = torch.device("cpu")
STREAMS = {"video": ("vision", 6), "vggish": ("audio", 4)}
RECIPE = {
    "streams": {s: {"encoder": {"name": "tcn", "channels": [8, 8], "dropout": 0.0}} for s in STREAMS},
    "fusion": {"name": "lfan", "dim": 8, "dropout": 0.0},
    "tasks": {"emotion": {"resolution": "frame", "track": "expression"}},
    "train": {"batch_size": 4},
}


def data_of(path, lengths, streams=STREAMS):
    """Clips of so many frames at 25 Hz with random features; four of five frames have a class."""
    rng, offsets = np.random.default_rng(0), np.concatenate([[0], np.cumsum(lengths)])
    ids, names = [f"c{i:05d}" for i in range(len(lengths))], ("neutral", "happy", "sad", "angry")
    rows = [{"id": name, "label": names[i % 4]} for i, name in enumerate(ids)]
    corpus = write_corpus(path, rows, "frames", "iemocap-4", tracks={"expression": list(names)})
    for name, (modality, width) in streams.items():
        import_arrays(corpus.store_path(name), ids, rng.normal(size=(offsets[-1], width)), offsets, modality, 25.0)
    classes = np.where(np.arange(offsets[-1]) % 5, rng.integers(0, 4, offsets[-1]), np.nan)[:, None]
    import_arrays(corpus.annotation_path("expression"), ids, classes, offsets, "vision", 25.0)
    recipe = binding.bind(make_recipe(RECIPE | {"streams": {s: RECIPE["streams"][s] for s in streams}}), corpus)
    return recipe, binding.dataset(corpus, recipe, binding.tasks_of(recipe, corpus), np.ones(len(lengths), bool))


def longer(batch, length):
    """The batch padded to so many frames."""
    more = length - batch.mask["video"].shape[1]
    rest = {k: {n: pad(v, (0, more)) for n, v in getattr(batch, k).items()} for k in ("mask", "target", "target_mask")}
    return replace(batch, x={s: pad(v, (0, 0, 0, more)) for s, v in batch.x.items()}, **rest)


def test_the_loss_and_its_gradients_do_not_depend_on_padding(tmp_path):
    recipe, data = data_of(tmp_path / "corpus", [12, 40, 41, 75, 76, 80, 150, 299])
    trainer = Trainer(*make_model(recipe, data, data.tasks), data, None, recipe, tmp_path / "run", CPU)
    trainer.model.train()
    for rows in trainer._epoch(0):
        found, batch = [], data.batch(rows)
        for given in (batch, longer(batch, 300)):
            trainer.model.zero_grad()
            weight = trainer.losses.total_weight([given], CPU, lambda total: total)
            loss, _ = trainer._piece(given, weight, 0, 0)
            found.append(torch.cat([loss.reshape(1), *(p.grad.flatten() for p in trainer.model.parameters())]))
        torch.testing.assert_close(*found, atol=1e-5, rtol=0)


def test_windows_of_many_clips_are_made_quickly(tmp_path):
    lengths = np.random.default_rng(0).lognormal(np.log(61), 0.7, 2000).astype(int) + 1
    _, data = data_of(tmp_path / "corpus", lengths, {"vggish": STREAMS["vggish"]})
    started = time.process_time()
    found = data.windowed(12.0, 8.0)
    assert time.process_time() - started < 1
    assert len(found) == (1 + np.ceil(np.maximum(lengths - 300, 0) / 200)).sum()


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Three minutes in windows that are scored."""
    recipe, data = data_of(tmp_path_factory.mktemp("recording") / "corpus", [4500])
    return make_model(recipe, data, data.tasks)[0], data.windowed(12.0, 8.0, scored=True)


def test_every_labelled_frame_of_a_long_recording_is_scored_once(recording):
    model, data = recording
    known = data.labels("emotion")[1].numpy()
    scored = data.frame_numbers("emotion")[known]
    assert len(predict(model, data, CPU, size=4)["emotion"]) == len(known)
    np.testing.assert_array_equal(np.sort(scored), np.flatnonzero(np.arange(4500) % 5))


def test_labels_of_a_window_do_not_hold_those_of_the_recording(recording):
    _, data = recording
    for _, known in data._frames(np.arange(len(data)), "emotion"):
        assert known.untyped_storage().nbytes() == len(known) <= 300
