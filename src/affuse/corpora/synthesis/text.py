"""Templated sentences: how people express an emotion, mostly without naming it."""

from __future__ import annotations

import numpy as np

TEMPLATES: dict[str, tuple[str, ...]] = {
    "neutral": (
        "I put the {thing} on the table.",
        "{person} will be here {time}.",
        "The {thing} is in the other room.",
        "We can talk about the {thing} {time}.",
        "I think {person} has the {thing}.",
        "It starts {time}, as usual.",
        "Okay, I will ask {person} {time}.",
        "So, {person} called about the {thing}.",
    ),
    "happy": (
        "This is wonderful, {person} loves the {thing}!",
        "I can't stop smiling, we won the {thing}!",
        "Great, {person} is coming {time}, I can't wait!",
        "That's the best {thing} I ever had!",
        "Yes! It worked, thank you so much!",
        "What a lovely {thing}, this is so much fun!",
        "I'm so glad you came, let's celebrate {time}!",
    ),
    "sad": (
        "I miss {person} so much.",
        "{person} is gone, and nothing will bring the old days back.",
        "I lost the {thing}, it was all I had left.",
        "I just want to be alone {time}.",
        "I can't stop crying since {person} left.",
        "Nobody came. I waited, but nobody came.",
        "It hurts to think about {person}.",
    ),
    "angry": (
        "How dare you touch my {thing}!",
        "I told you a thousand times, leave {person} alone!",
        "Stop it right now, this is outrageous!",
        "Get out, I never want to see that {thing} again!",
        "{person} lied to me, I hate this!",
        "Are you kidding me? You broke the {thing} again!",
        "Shut up, I have had enough of {person}!",
    ),
    "fear": (
        "Please don't, there is someone behind the {thing}.",
        "We have to hide, {person} is coming!",
        "I'm shaking, I don't dare to look at the {thing}.",
        "Did you hear that? Somebody help us!",
        "What if {person} finds us {time}? We will die here.",
        "Don't leave me alone in the dark, please.",
        "Run! It is dangerous near the {thing}!",
    ),
    "disgust": (
        "Eww, there is something rotten in the {thing}.",
        "That {thing} smells awful, take it away.",
        "Yuck, {person} never washes the {thing}.",
        "I think I'm going to be sick.",
        "It's slimy, I can't eat that {thing}.",
        "That is gross, how can {person} live like this?",
        "Ugh, the {thing} is covered in mould.",
    ),
    "surprise": (
        "Oh my god, {person} is here already?",
        "What? You bought the {thing}?",
        "Wow, I did not see that coming!",
        "No way! {person} and you, really?",
        "Wait, the {thing} was in here all the time?",
        "I can't believe it, since when?",
        "Whoa, where did that {thing} come from?",
    ),
}
_SLOTS: dict[str, tuple[str, ...]] = {
    "thing": ("letter", "cake", "car", "book", "game", "house", "phone", "picture", "kitchen", "bag"),
    "person": ("Anna", "my brother", "the doctor", "Sam", "Mary", "the teacher", "my friend", "your mother"),
    "time": ("tomorrow", "tonight", "on Monday", "after lunch", "next week", "at eight"),
}
_FILLERS = ("um", "well", "you know", "er", "like", "I mean")


def sentence(emotion: str, rng: np.random.Generator, noise: float = 0.0) -> str:
    """A sentence for one of the TEMPLATES; `noise` 0..1 is the share of words lost to hesitation."""
    templates = TEMPLATES[emotion]
    chosen = {slot: words[rng.integers(len(words))] for slot, words in _SLOTS.items()}
    text = templates[rng.integers(len(templates))].format(**chosen)
    words = np.array(text.split(), dtype=object)
    lost = rng.random(len(words)) < noise
    words[lost] = rng.choice(np.array(_FILLERS, dtype=object), lost.sum())
    text = " ".join(words)
    return text[0].upper() + text[1:]
