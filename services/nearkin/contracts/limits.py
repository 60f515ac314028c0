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
MAX_REQUEST_ID = 128
MAX_SURFACE = 100
#: Items of one slate, and the last position in it.
MAX_SLATE = 200
MAX_POSITION = 1_000
MAX_VALUE = 1_000_000
#: What is longer is a warehouse's order rather than one person's: its n(n-1) pairs would outweigh hundreds of baskets.
MAX_VISIT_ITEMS = 2_000
#: Of a logged answer: a name of Nearkin's own making, such as a feature's or a version's.
MAX_WORD = 256
MAX_SOURCES = 16
MAX_RANK = 100_000
MAX_FEATURES = 250
MAX_DEGRADED = 16
MAX_MOVED = 200

#: 2000-01-01 and 2100-01-01 in milliseconds: a time in seconds, microseconds or nanoseconds falls outside.
MIN_OCCURRED_AT = 946_684_800_000
MAX_OCCURRED_AT = 4_102_444_800_000

#: How late feedback may be: longer than its topics and their dead letters are kept, so that neither an outage of the
#: worker nor a letter that was mended makes an event too old.
MAX_LATENESS_MS = 30 * 24 * 3600 * 1000
#: How far ahead of the clock in force feedback may be: clocks differ, and no honest one by more.
MAX_AHEAD_MS = 5 * 60 * 1000

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
#: A pseudonym: the id of the key that made it, and 128 bits in hexadecimal digits.
USER_PATTERN = r"^[A-Za-z0-9_-]{1,32}:[0-9a-f]{32}(?![\s\S])"
