"""Groups of speakers and sources never cross a split that affuse makes; what crosses another is counted and named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from affuse.core.config import GROUPS, load_recipe, recipe_names
from affuse.core.errors import BadCorpus
from affuse.corpora.crossing import crossed, crossing, describe
from affuse.corpora.manifest import groups_of, make_splits


def sessions(n=4, dialogues=6, turns=20):
    """A table as IEMOCAP's: two people meet in every dialogue of their session; the last session is the test split."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "id": f"S{s}d{d}u{u}", "conversation": f"S{s}d{d}", "speaker": f"S{s}{'FM'[u % 2]}", "source": f"S{s}",
            "label": "ab"[rng.integers(2)],
        }
        for s in range(1, n + 1)
        for d in range(dialogues)
        for u in range(turns)
    ]
    return pd.DataFrame(rows).assign(split=lambda t: np.where(t["source"] == f"S{n}", "test", "train"))


def partition(groups):
    return {frozenset(np.flatnonzero(groups == g)) for g in set(groups)}


def brute(table):
    """Connected components by merging until nothing changes."""
    found = [{i} for i in range(len(table))]

    def linked(a, b):
        return any({table[c][i] for i in a} & {table[c][i] for i in b} - {""} for c in ("speaker", "source"))

    while pair := next(((a, b) for a in found for b in found if a is not b and linked(a, b)), None):
        found = [f for f in found if f is not pair[0] and f is not pair[1]] + [pair[0] | pair[1]]
    return {frozenset(f) for f in found}


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_the_connected_components_of_speaker_and_source(seed):
    rng = np.random.default_rng(seed)
    names = {c: [f"{c[0]}{i}" if i else "" for i in rng.integers(0, 14, 24)] for c in ("speaker", "source")}
    table = pd.DataFrame(names)
    assert partition(groups_of(table, GROUPS)) == brute(table)


def test_empty_cells_link_nothing_and_a_chain_links_all():
    lonely = pd.DataFrame({"speaker": ["", "", ""], "source": ["a", "b", "c"]})
    assert list(groups_of(lonely, GROUPS)) == ["a", "b", "c"]
    chain = pd.DataFrame({"speaker": ["x", "x", "y", "y"], "source": ["b", "c", "c", "a"]})
    assert list(groups_of(chain, GROUPS)) == ["a"] * 4


def test_where_every_speaker_has_one_source_the_split_is_that_by_source():
    table = sessions(n=8)
    for folds in (None, 4):
        for ours, theirs in zip(
            make_splits(table, GROUPS, 0.2, 0.2, folds, 0),
            make_splits(table, "source", 0.2, 0.2, folds, 0),
            strict=True,
        ):
            assert (ours == theirs).all()


@pytest.mark.parametrize("folds", [4, None])
def test_nothing_crosses_folds_or_carved_parts(folds):
    table = sessions().assign(split="")
    rows = crossing(table, make_splits(table, GROUPS, 0.1, 0.2, folds, 0))
    assert rows == []
    assert describe(rows, table, folds, GROUPS) == "no speaker, source or conversation is in train and test"


def test_what_a_user_lets_cross_is_counted_in_every_fold():
    table = sessions()
    rows = crossing(table, make_splits(table, "conversation", 0.0, 0.2, 4, 0))
    assert crossed(rows) == {"speaker", "source"}
    assert {row["fold"] for row in rows} == {0, 1, 2, 3}
    assert all(row["count"] >= len(row["examples"]) > 0 for row in rows)
    words = describe(rows, table, 4, "conversation")
    assert "sources and 0 conversations (S1F" in words
    assert words.endswith("are in train and test by split.group_by=conversation")


def test_a_published_split_is_kept_and_said_to_share_speakers():
    table = sessions().assign(
        speaker=lambda t: "friend" + t["speaker"].str[-1],
        split=lambda t: t["split"].where(t["source"] != "S3", "valid"),
    )
    (split,) = make_splits(table, GROUPS, 0.1, 0.2, None, 0)  # one component, but nothing is left to part
    assert (split == table["split"]).all()
    words = describe(crossing(table, [split]), table, None, GROUPS)
    both = "2 speakers, 0 sources and 0 conversations (friendF, friendM) are in train and test by the published split"
    assert both in words


def test_too_few_groups_name_the_columns_that_make_more():
    table = sessions().assign(speaker="everybody")
    with pytest.raises(
        BadCorpus, match=r"4 folds need 4 groups, speaker\+source makes 1 of the 480 utterances"
    ) as caught:
        make_splits(table, GROUPS, 0.1, 0.2, 4, 0)
    assert "split.group_by=source (4 groups) or split.group_by=conversation (24 groups)" in caught.value.remedy
    with pytest.raises(BadCorpus, match="'valid' and what is left of train need 2 groups") as caught:
        make_splits(table, GROUPS, 0.1, 0.2, None, 0)
    assert "split.group_by=conversation" in caught.value.remedy
    with pytest.raises(BadCorpus, match="no column 'show'"):
        make_splits(table, "speaker+show", 0.1, 0.2, None, 0)


def test_no_recipe_loosens_the_grouping():
    assert {name: by for name in recipe_names() if (by := load_recipe(name).split.group_by) != GROUPS} == {}
