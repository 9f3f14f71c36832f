"""Whether words are in the language that a model knows."""

from __future__ import annotations

import re

WORDS = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
FEW = 5  # words, below which one cannot tell
# The commonest English words that are rare in other languages written with the same letters
# fmt: off
COMMON = frozenset(
    [
        "about", "all", "and", "any", "are", "at", "be", "because", "been", "but", "by", "can", "can't",
        "could", "did", "doesn't", "don't", "down", "for", "from", "get", "go", "going", "good", "got", "had",
        "has", "have", "he", "he's", "here", "him", "his", "how", "i", "i'll", "i'm", "if", "into", "is",
        "it", "it's", "just", "know", "let's", "like", "look", "make", "more", "my", "never", "not", "of",
        "oh", "okay", "one", "only", "or", "our", "out", "over", "really", "right", "see", "she", "she's",
        "should", "take", "tell", "thank", "thanks", "that", "that's", "the", "their", "them", "then",
        "there", "these", "they", "think", "this", "time", "to", "up", "very", "want", "we", "we're", "well",
        "were", "what", "what's", "when", "which", "who", "why", "will", "with", "would", "yeah", "you",
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
