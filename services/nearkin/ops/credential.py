"""A secret that may be exchanged while a process runs: what its file says now, where it came from a file."""

import os
import time
from pathlib import Path

from pydantic import SecretStr

#: How long what was read is believed, in seconds.
AGE_S = 1.0


class Credential:
    """A setting that is a secret, for whoever sends it more than once.

    Where the environment sets it, or it was given otherwise, it stays as it is. Where a file of
    `NEARKIN_SECRETS_DIR` does, the file is looked at about once a second; while it cannot be read, or is empty, what it
    said last is sent.

    Args:
        setting: the field of the settings.
        value: what it was when the process started.
    """

    def __init__(self, setting: str, value: SecretStr | None) -> None:
        self._value = value.get_secret_value() if value is not None else ""
        folder = os.environ.get("NEARKIN_SECRETS_DIR")
        self._file = Path(folder) / f"nearkin_{setting}" if folder else None
        if f"NEARKIN_{setting.upper()}" in os.environ or self._value != self._read():
            self._file = None
        self._read_at = time.monotonic()

    def __repr__(self) -> str:
        return "Credential()"

    def __call__(self) -> str:
        """The secret as it is now; empty where there is none."""
        now = time.monotonic()
        if self._file is not None and now - self._read_at >= AGE_S:
            self._read_at = now
            self._value = self._read() or self._value
        return self._value

    def _read(self) -> str:
        if self._file is None:
            return ""
        try:
            return self._file.read_text().strip()
        except (OSError, UnicodeDecodeError):
            return ""
