"""Whether words are in the language that a model knows."""

from __future__ import annotations

import re

WORDS = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
FEW = 5  # words, below which one cannot tell
# The commonest English words that are rare in other languages written with the same letters
# fmt: off
COMMON = frozenset(
    [
        "about", "all", "and", "are", "as", "at", "be", "because", "been", "but", "by", "can", "come",
        "could", "did", "do", "don't", "for", "from", "get", "go", "good", "got", "had", "has", "have", "he",
        "her", "here", "hey", "him", "his", "how", "i'll", "i'm", "if", "is", "it", "it's", "just", "know",
        "let's", "like", "look", "me", "my", "never", "no", "not", "of", "oh", "okay", "on", "one", "or",
        "our", "out", "really", "right", "see", "she", "so", "some", "that", "that's", "the", "their", "them",
        "then", "there", "they", "think", "this", "time", "to", "up", "us", "want", "was", "we", "we're",
        "well", "were", "what", "when", "which", "who", "why", "will", "with", "would", "yeah", "you",
        "you're", "your",
    ]
)
# fmt: on


def is_english(text: str) -> bool:
    """False only where words are plainly not English: other letters, or FEW and more words of which none is common."""
    letters = [c for c in text if c.isalpha()]
    if letters and sum(c.isascii() for c in letters) < 0.7 * len(letters):
        return False
    words = [w.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'") for w in WORDS.findall(text)]
    return len(words) < FEW or any(w in COMMON for w in words)
