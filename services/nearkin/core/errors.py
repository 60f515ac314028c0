"""Every error Nearkin raises on purpose, and the one question each answers: would trying again help?

NearkinError
├── PermanentError          trying again gives the same result
│   ├── InvalidEvent        an event breaks its contract: dead letter
│   ├── NothingToEncode     an item holds nothing that an encoder can use: dead letter
│   ├── InvalidRequest      a look-up breaks its contract: INVALID_ARGUMENT
│   ├── UnknownItem         a look-up names an item that is not in the index: NOT_FOUND
│   ├── UnusableMedia       a picture or video is refused or cannot be read: its item goes without it
│   └── Misconfigured       a setting, file, topic or collection is not as it must be: exit with the remedy
└── TemporaryError          trying again later may succeed: retried in place
    ├── Unavailable         an engine cannot be reached or does not answer in time: UNAVAILABLE
    ├── MediaUnavailable    a picture or video cannot be had for now: its item goes without it until it can
    ├── DeadlineExceeded    a look-up's deadline passed before its answer was ready: DEADLINE_EXCEEDED
    └── Overloaded          a look-up server has as much work as it takes: RESOURCE_EXHAUSTED
"""


class NearkinError(Exception):
    """Base of the family; never raised itself."""


class PermanentError(NearkinError):
    """Trying again gives the same result.

    Args:
        problem: what is wrong, without quoting the event's text.
        remedy: what the reader can do about it.
        field: the field, setting or file that is wrong, as a dotted path; empty where it is the whole.
        reason: a short stable word for metrics and dead-letter headers, such as ``too_long``.
    """

    def __init__(self, problem: str, *, remedy: str, field: str = "", reason: str = "invalid") -> None:
        self.problem, self.remedy, self.field, self.reason = problem, remedy, field, reason
        super().__init__(f"{field}: {problem}; {remedy}" if field else f"{problem}; {remedy}")


class InvalidEvent(PermanentError):
    """An event breaks its contract."""


class NothingToEncode(PermanentError):
    """An item holds nothing that an encoder of the bundle can use."""


class InvalidRequest(PermanentError):
    """A look-up breaks its contract."""


class UnknownItem(PermanentError):
    """A look-up names an item that the index does not hold, or that is deleted."""


class UnusableMedia(PermanentError):
    """A picture or video is refused, or cannot be read."""


class Misconfigured(PermanentError):
    """A setting, file, topic or collection is not as it must be."""


class TemporaryError(NearkinError):
    """Trying again later may succeed."""


class Unavailable(TemporaryError):
    """An engine cannot be reached or does not answer in time.

    Args:
        engine: its name as a person knows it, such as ``index`` or ``broker``.
        detail: what was seen.
    """

    def __init__(self, engine: str, detail: str) -> None:
        self.engine, self.detail = engine, detail
        super().__init__(f"the {engine} is unavailable: {detail}")


class MediaUnavailable(TemporaryError):
    """A picture or video cannot be had for now.

    Args:
        problem: what was seen, without a URL's query, which may hold a signature.
        remedy: what the reader can do about it, where it stays so.
        field: the field that names it, as a dotted path; empty where it is the whole.
        reason: a short stable word for metrics, such as ``too_slow``.
        retry_after_s: how long it is certain to stay so, in seconds; 0 where that is not known.
    """

    def __init__(
        self, problem: str, *, remedy: str, field: str = "", reason: str = "unavailable", retry_after_s: float = 0.0
    ) -> None:
        self.problem, self.remedy, self.field, self.reason = problem, remedy, field, reason
        self.retry_after_s = retry_after_s
        super().__init__(f"{field}: {problem}; {remedy}" if field else f"{problem}; {remedy}")


class DeadlineExceeded(TemporaryError):
    """A look-up's deadline passed before its answer was ready."""


class Overloaded(TemporaryError):
    """A look-up server has as much work as it takes at once."""
