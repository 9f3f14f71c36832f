"""The groups of an interval, and the words for what it can mean."""

from __future__ import annotations

import pandas as pd

from affuse.core.config import GROUPS
from affuse.evaluation.clusters import cluster


def scored(speakers, sources, conversations):
    """One utterance per element."""
    return pd.DataFrame({"speaker": speakers, "source": sources, "conversation": conversations})


def test_people_who_never_meet_are_the_groups_and_need_no_words():
    found, by, meaning = cluster(scored(list("aabbcc"), list("xxyyzz"), [""] * 6), GROUPS)
    assert (by, meaning, list(found[GROUPS])) == (GROUPS, "", list("xxyyzz"))


def test_one_session_alone_is_judged_by_its_conversations_and_says_so():
    _, by, meaning = cluster(scored(list("FMFMFMFM"), ["Ses04"] * 8, list("11223344")), GROUPS)
    assert by == "conversation"
    assert "one group of speaker+source holds 8 of the 8 utterances" in meaning
    assert "other conversations of the same 2 speakers and 1 source" in meaning
    assert "does not generalise over speakers or sources" in meaning


def test_a_series_whose_characters_are_everywhere_is_judged_by_its_episodes():
    _, by, meaning = cluster(scored(list("RJRJRJRJ"), list("11223344"), list("abcdefgh")), GROUPS, {"speaker"})
    assert by == "source"
    assert meaning.endswith("the interval does not generalise over speakers")


def test_speakers_who_were_trained_on_are_said_though_they_stay_apart():
    _, by, meaning = cluster(scored(list("aabbcc"), list("xxyyzz"), [""] * 6), GROUPS, {"speaker"})
    assert (by, meaning) == (GROUPS, "the interval does not generalise over speakers")


def test_a_column_that_the_user_named_is_kept():
    _, by, meaning = cluster(scored(list("abababab"), list("xxxxyyyy"), list("11223344")), "conversation")
    assert (by, meaning) == ("conversation", "the interval does not generalise over speakers or sources")
    _, by, meaning = cluster(scored(list("ab"), list("xx"), list("11")), "source")
    assert (by, meaning) == ("source", "all 2 utterances are one group of source: there is no interval")


def test_two_people_without_conversations_are_two_groups():
    _, by, _ = cluster(scored(list("aab"), list("aab"), [""] * 3), GROUPS)
    assert by == GROUPS
