"""FiLM: one stream modulates the others, whatever is there."""

from __future__ import annotations

import pytest
import torch
from tests.parts import encoded_of

from affuse.core.errors import BadConfig
from affuse.models.fusions.film import Film

DIMS = {"sound": 5, "face": 3, "words": 4}


def pooled(names, n=5):
    generator = torch.Generator().manual_seed(1)
    return {s: torch.randn(n, DIMS[s], generator=generator) for s in names}


def test_two_streams_are_the_baselines_film():
    torch.manual_seed(0)
    h = pooled(["sound", "face"])
    part = Film({s: DIMS[s] for s in h}, dim=6)
    scale, shift = part.modulate(h["sound"]).split(6, 1)
    expected = (1 + scale) * part.rest.project["face"](h["face"]) + shift
    torch.testing.assert_close(part(encoded_of(h, torch.ones(5, 2, dtype=torch.bool))).pooled, expected)


@pytest.mark.parametrize("by", list(DIMS))
def test_every_absence_is_as_it_is_defined(by):
    torch.manual_seed(0)
    part, h = Film(DIMS, dim=6, by=by), pooled(DIMS)
    rest = [s for s in DIMS if s != by]
    there = [set(DIMS), set(rest), {by}, {by, rest[0]}, set()]
    found = part(encoded_of(h, torch.tensor([[s in row for s in DIMS] for row in there]))).pooled
    scale, shift = part.modulate(h[by]).chunk(2, 1)
    v = {s: part.rest.project[s](h[s]) for s in rest}
    both = (v[rest[0]] + v[rest[1]]) / 2
    torch.testing.assert_close(found[0], ((1 + scale) * both + shift)[0])
    torch.testing.assert_close(found[1], both[1])
    torch.testing.assert_close(found[2], shift[2])
    torch.testing.assert_close(found[3], ((1 + scale) * v[rest[0]] + shift)[3])
    assert (found[4] == 0).all()


def test_a_stream_alone_is_its_shift():
    part, h = Film({"face": 3}, dim=6), pooled(["face"])
    found = part(encoded_of(h, torch.ones(5, 1, dtype=torch.bool))).pooled
    torch.testing.assert_close(found, part.modulate(h["face"])[:, 6:])


def test_an_unknown_stream_is_refused_by_name():
    with pytest.raises(BadConfig, match=r"(?s)smell.*sound, face, words"):
        Film(DIMS, by="smell")
