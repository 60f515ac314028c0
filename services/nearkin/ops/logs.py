"""One structured line per decision: for a person at a terminal, or as JSON for a machine.

A line says what was decided, of which event or look-up (`event_id`, `request_id`) and where it lies (topic, partition,
offset), never the event's text, and never a secret: of an exception that is not ours, only its type and where it was
raised are shown. What an operator acts on is told at WARNING, what changes at INFO; that an event was applied or a call
answered, as it should be, at DEBUG. The same line in a flood is cut to a few, and the next one says how many were left
out; lines that differ in what they are about, such as the reason of a refusal, are not the same.
"""

import datetime as dt
import functools
import json
import logging
import re
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from nearkin.core.errors import NearkinError
from nearkin.ops.settings import Settings

#: What differs between two lines of one kind.
NUMBER = re.compile(r"0x[0-9a-f]+|\d+")

#: Libraries that tell about themselves at INFO, line after line.
CHATTY = ("aiokafka", "faust", "mode", "kafka", "httpx", "asyncio", "grpc", "prometheus_client", "opentelemetry")

#: Fields whose values make two kinds of one line: few values each.
KINDS = ("reason", "engine", "part", "code", "state")


def fields(**values: object) -> dict[str, Any]:
    """What a line says beside its words: `log.info("dead letter", extra=fields(reason="too_long"))`."""
    return {"fields": values}


def configure(settings: Settings, process: str) -> None:
    """Send every log line of the process to stderr in one shape.

    Args:
        settings: `log_format` and `log_level`.
        process: what the process is, such as ``indexer-live``; stands in every line.
    """
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(process) if as_json else TextLines(process))
    handler.addFilter(Throttle())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    level = logging.getLevelNamesMapping()[settings.log_level]
    root.setLevel(max(logging.INFO, level))
    logging.getLogger("nearkin").setLevel(level)  # details are ours alone
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, level))


def describe(error: BaseException) -> str:
    """An exception without its words, which may quote an event: its type, and where it was raised.

    An error of our own family is safe by contract and is given in full; so is what the system says of an OSError.
    """
    if isinstance(error, NearkinError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    system = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
    return f"{type(error).__name__}{system}{place}"


def _facts(record: logging.LogRecord) -> dict[str, object]:
    facts: dict[str, object] = dict(getattr(record, "fields", {}))
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        facts["error"] = describe(error)
        facts["stack"] = [
            f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)[-6:]
        ]
    left_out = getattr(record, "left_out", 0)
    if left_out:
        facts["left_out"] = left_out
    return facts


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        when = dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")
        line = {
            "time": when,
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
            **_facts(record),
        }
        return json.dumps(line, ensure_ascii=True, default=str)


class TextLines(logging.Formatter):
    """One line for a person: date and time of this machine, level, process, words, name=value."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of text; line breaks inside are escaped."""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created)) + f".{int(record.msecs):03d}"
        facts = "".join(f" {name}={value}" for name, value in _facts(record).items())
        words = f"{record.getMessage()}{facts}".replace("\r", "\\r").replace("\n", "\\n")
        return f"{when} {record.levelname:<7} {self._process}: {words}"


class Throttle(logging.Filter):
    """Lets a few lines of one kind through in a period; the first one afterwards says how many were left out.

    Who asks for details wants each, up to a number that a process can write beside its work.

    Args:
        most: lines of one kind (same logger, same words, whatever the numbers in them, same `KINDS`) in a period.
        period_s: its length in seconds.
        most_details: the same for lines at DEBUG.
    """

    def __init__(self, most: int = 10, period_s: float = 10.0, most_details: int = 5_000) -> None:
        super().__init__()
        self._most, self._period_s, self._most_details = most, period_s, most_details
        self._seen: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is let through."""
        facts = getattr(record, "fields", None) or {}
        kind = (
            record.name,
            record.levelno,
            _without_numbers(str(record.msg)),
            *(str(facts[each]) for each in KINDS if each in facts),
        )
        most = self._most if record.levelno > logging.DEBUG else self._most_details
        began, count = self._seen.get(kind, (record.created, 0))
        if abs(record.created - began) >= self._period_s:  # the clock may have been set back
            record.left_out = max(0, count - most)
            began, count = record.created, 0
        if len(self._seen) > 1000:
            self._seen.clear()
        self._seen[kind] = (began, count + 1)
        return count < most


@functools.lru_cache(maxsize=4096)
def _without_numbers(words: str) -> str:
    return NUMBER.sub("#", words)
