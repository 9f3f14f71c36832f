"""The errors that affuse raises: each names the thing, the value and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AffuseError(Exception):
    """The base of all errors of affuse; `remedy` says what the user can do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message, self.remedy = message, remedy

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.message, self.remedy)

    def to_dict(self) -> dict[str, str]:
        """The error as in JSON outputs: {type, message, remedy}."""
        return {"type": type(self).__name__, "message": self.message, "remedy": self.remedy}


class UnknownName(AffuseError):
    """A name that is not in the registry, config or label space."""

    @classmethod
    def among(cls, what: str, name: str, known: Iterable[str]) -> UnknownName:
        """An error for `name` that lists the three closest of `known`."""
        known = sorted(set(known))
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:12]
        return cls(f"unknown {what} '{name}'", f"did you mean: {', '.join(close)}?" if close else "")


class BadConfig(AffuseError):
    """A recipe, an override or a combination of parts that cannot work."""


class BadMedia(AffuseError):
    """A clip, sound, picture or subtitle file that cannot be used."""


class MissingFile(AffuseError):
    """A path that does not exist or is of the wrong kind."""


class BadCorpus(AffuseError):
    """A release, table, manifest or split that contradicts itself or its published counts."""


class BadFeatures(AffuseError):
    """A feature file or store that is damaged, incomplete or does not belong to the corpus."""


class BadRun(AffuseError):
    """A run folder that is incomplete, or does not fit what it is used with."""


class ProtocolError(AffuseError):
    """A score that would break the evaluation protocol."""


class MissingDependency(AffuseError):
    """An optional package or weight file that is not installed."""


class StorageError(AffuseError):
    """A write that failed (disk full, no permission); nothing half-written is left."""
