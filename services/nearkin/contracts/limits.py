r"""How large and of what shape the parts of an event may be: part of the contract, the same as in `schemas/events`.

Lengths count Unicode code points. The patterns mean the same to Python and to ECMA-262, which JSON Schema uses: their
ends are `(?![\s\S])`, as Python's `$` would let a line feed pass.
"""

#: Bytes of one event's value.
MAX_EVENT_BYTES = 256 * 1024

MAX_ID = 256
MAX_EVENT_ID = 128
MAX_TITLE = 1_000
MAX_DESCRIPTION = 20_000
MAX_LANGUAGE = 35
MAX_MAKER = 200
MAX_VARIANT_GROUP = 256
MAX_CATEGORIES = 64
MAX_CATEGORY_LEVELS = 8
MAX_CATEGORY_NAME = 200
MAX_TAGS = 200
MAX_TAG = 200
MAX_ATTRIBUTES = 200
MAX_NAME = 200
MAX_ATTRIBUTE_VALUE = 1_000
MAX_NUMBERS = 200
MAX_UNIT = 50
MAX_IMAGES = 50
MAX_VIDEOS = 50
MAX_URI = 2_048
MAX_MARKETS = 250
MAX_MARKET = 100

#: 2000-01-01 and 2100-01-01 in milliseconds: a time in seconds, microseconds or nanoseconds falls outside.
MIN_OCCURRED_AT = 946_684_800_000
MAX_OCCURRED_AT = 4_102_444_800_000

#: No control characters, and something that is not a blank.
ID_PATTERN = r"^(?=[\s\S]*[^\s\uFEFF])[^\u0000-\u001F\u007F-\u009F]*(?![\s\S])"
#: No control characters and no "=", so that "name=value" is split in one way only.
NAME_PATTERN = r"^[^=\u0000-\u001F\u007F-\u009F]*(?![\s\S])"
#: No control characters and no "*", which stands for every market in the index.
MARKET_PATTERN = r"^[^*\u0000-\u001F\u007F-\u009F]*(?![\s\S])"
#: ISO 4217.
CURRENCY_PATTERN = r"^[A-Z]{3}(?![\s\S])"
#: The shape of a BCP 47 tag, or nothing.
LANGUAGE_PATTERN = r"^([A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*)?(?![\s\S])"
