import hashlib
import hmac
import re

import pytest

from nearkin.contracts.limits import USER_PATTERN
from nearkin.core.pseudonym import PseudonymKey

KEY = PseudonymKey.parse("k1:" + "0b" * 32)


def test_a_pseudonym_is_the_first_half_of_the_keyed_hash_behind_the_keys_id():
    whole = hmac.new(b"\x0b" * 32, b"ann", hashlib.sha256).hexdigest()

    assert KEY.pseudonym("ann") == f"k1:{whole[:32]}"


@pytest.mark.parametrize("user", ["ann", "Ann", " ann", "마그", "ann@example.com", "x" * 10_000])
def test_a_pseudonym_has_the_form_that_the_contract_takes(user):
    assert re.match(USER_PATTERN, KEY.pseudonym(user))


def test_another_key_makes_another_pseudonym_under_its_own_id():
    other = PseudonymKey.parse("k2:" + "0c" * 32)

    assert other.pseudonym("ann").startswith("k2:")
    assert other.pseudonym("ann")[3:] != KEY.pseudonym("ann")[3:]


def test_a_key_is_not_shown():
    assert "0b0b" not in repr(KEY)
    assert "x0b" not in repr(KEY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s3cret",
        "k1:s3cret",
        "k1:" + "0" * 32,
        "k1:" + "0" * 63,
        "k 1:" + "0" * 64,
        ":" + "0" * 64,
        "k1:" + "0B" * 32,
    ],
)
def test_a_key_of_another_form_is_refused_and_not_quoted(text):
    with pytest.raises(ValueError, match=r"^it has not the form <key id>:<64 hex digits>$"):
        PseudonymKey.parse(text)
