"""The error tree. Every expected failure is one of these.

    ConchError                 exit code 2: what, where, expected, found, next command
    ├── SettingsError          a key or value in config/*.toml or --set
    ├── DataError              a table of events, items or users
    ├── ArtifactError          a missing, incomplete or altered artefact
    ├── TrainingError          a training run that cannot go on (NaN loss, nothing to learn from)
    ├── CompressionError       a model that cannot be made smaller as asked
    ├── ExportError            a graph that does not export or fails parity
    ├── ReleaseError           a release that cannot be assembled or installed
    │   ├── BlessingError      no valid blessing: the gate did not pass this very release
    │   └── PublishError       a release that could not go live; the one before still serves
    ├── GateError              a gate that cannot be run: a refusal is a result, not an error
    ├── ServerError            Triton that cannot start, answer or stop
    ├── RequestError           a malformed recommendation request
    └── FeedbackError          the event store: settings, keys, files
        └── StoreUnavailableError   cannot store or read now; the same call later is right

Anything else is a bug: traceback and exit code 1.
"""

from __future__ import annotations


class ConchError(Exception):
    """An expected failure, told so that the reader knows what to do next.

    Args:
        what: One sentence that names what went wrong.
        where: File, key, row or address.
        expected: What would have been right.
        found: What was there instead.
        next_step: The command or edit that mends it.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        next_step: str | None = None,
    ) -> None:
        self.what = what
        self.where = where
        self.expected = expected
        self.found = found
        self.next_step = next_step
        super().__init__(self._message())

    def _message(self) -> str:
        parts = [self.what]
        for label, text in (
            ("where", self.where),
            ("expected", self.expected),
            ("found", self.found),
            ("next", self.next_step),
        ):
            if text is not None:
                parts.append(f"  {label}: {text}")
        return "\n".join(parts)


class SettingsError(ConchError):
    """A key or value in a settings file or in ``--set``."""


class DataError(ConchError):
    """A table of events, items or users that cannot be used."""


class ArtifactError(ConchError):
    """A missing, incomplete or altered artefact."""


class TrainingError(ConchError):
    """A training run that cannot go on."""


class CompressionError(ConchError):
    """A model that cannot be made smaller as asked."""


class ExportError(ConchError):
    """A graph that does not export, or that differs from its model."""


class ReleaseError(ConchError):
    """A release that cannot be assembled or installed."""


class BlessingError(ReleaseError):
    """A blessing that is missing, expired, forged, or for other files."""


class PublishError(ReleaseError):
    """A release that could not go live, or a publisher that may not go on. The release before still serves."""


class GateError(ConchError):
    """A gate or a run of the loop that cannot start: rules, data or a lease are missing."""


class ServerError(ConchError):
    """A Triton server that cannot start, answer or stop."""


class RequestError(ConchError):
    """A malformed recommendation request."""


class FeedbackError(ConchError):
    """Events, their store or their keys cannot be used."""


class StoreUnavailableError(FeedbackError):
    """The event store cannot take or give events now; nothing was acknowledged.

    Args:
        what: As for every error.
        retry_after_s: When to try again.
    """

    def __init__(self, what: str, *, retry_after_s: int = 1, **told: str | None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(what, **told)
