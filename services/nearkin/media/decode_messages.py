"""What a decoder's process and its parent say to each other: two lengths, a header in JSON, and a body.

Apart from both, as the parent loads no decoder and the process nothing but one.
"""

import struct

#: Bytes of the header and of the body.
LENGTHS = struct.Struct(">II")

#: Bytes of a header in an answer, which names sizes or a problem.
MOST_HEADER_BYTES = 4096

#: The longer edge of decoded pixels may have so many times what the shorter one is bounded to.
LONGEST_ASPECT = 4

#: What a process may say is wrong with a picture.
REASONS = frozenset({"empty", "broken", "truncated", "bomb", "memory", "too_many_pixels"})
