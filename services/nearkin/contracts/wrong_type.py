"""What msgspec says of a value that it refuses, in words: in which field, of which type, and which it must be.

Nothing here quotes a value, and msgspec quotes no name that a producer chose: such a name is "[...]" in a field.
"""

import re

_WHERE = re.compile(r" - at (?:`key` in )?`\$\.?([^`]*)`$")
_TYPES = re.compile(r"Expected `([^`]+)`(?:, got `([^`]+)`)?")
_WORDS = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def field_of(message: str) -> str:
    """The field that a message is about, as a dotted path; empty where it is the whole."""
    where = _WHERE.search(message)
    return where[1] if where else ""


def is_of_a_name(message: str) -> bool:
    """Whether a message is about a name in that field rather than a value."""
    return "`key` in" in message


def wrong_type(message: str) -> str:
    """The problem with a value's type, such as "it is a text, and must be a number"."""
    found = _TYPES.search(message)
    if found is None:
        return "it has the wrong type"
    wanted, got = found.groups()
    subject = "a name in it" if is_of_a_name(message) else "it"
    must = f"must be {' or '.join(_words(one) for one in wanted.split(' | '))}"
    if got is None:
        return f"{subject} {must}"
    # 1.5 and 1.0 are numbers, and neither is a whole one.
    is_ = "a number with a fraction" if got == "float" else _words(got)
    return f"{subject} is {is_}, and {must}"


def _words(kind: str) -> str:
    return _WORDS.get(kind, f"of the type {kind}")
