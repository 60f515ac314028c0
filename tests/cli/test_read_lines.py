import bz2
import gzip
import lzma
import os
from pathlib import Path

import pytest

from nearkin.cli.read_lines import read_lines, reads_once, require_readable
from nearkin.contracts.limits import MAX_EVENT_BYTES
from nearkin.core.errors import Misconfigured

TEXT = b'{"id": "1"}\n\n{"id": "2"}\n{"id": "3"}'


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_lines_are_read_whatever_their_compression_and_blank_ones_only_counted(tmp_path, compress):
    file = tmp_path / "items"
    file.write_bytes(compress(TEXT))
    lines = [(line.place, line.value.strip()) for line in read_lines(str(file))]
    assert lines == [(f"{file}:1", b'{"id": "1"}'), (f"{file}:3", b'{"id": "2"}'), (f"{file}:4", b'{"id": "3"}')]


def test_an_empty_file_has_no_lines(tmp_path):
    (tmp_path / "items").touch()
    assert list(read_lines(str(tmp_path / "items"))) == []


def test_of_an_endless_line_only_so_much_is_kept_as_shows_that_it_is_too_long(tmp_path):
    file = tmp_path / "items"
    file.write_bytes(b"x" * (3 * MAX_EVENT_BYTES) + b"\nnext\n")
    first, second = read_lines(str(file))
    assert MAX_EVENT_BYTES < len(first.value) <= MAX_EVENT_BYTES + 2
    assert (second.place, second.value) == (f"{file}:2", b"next\n")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_damage_is_told_with_the_file(tmp_path, compress):
    file = tmp_path / "items"
    file.write_bytes(compress(TEXT * 1000)[:-20])
    with pytest.raises(Misconfigured, match=r"items.*damaged"):
        list(read_lines(str(file)))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Misconfigured, match=r"missing\.jsonl: No such file"):
        list(read_lines(str(tmp_path / "missing.jsonl")))


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_byte_order_mark_is_left_out_at_the_start_of_a_file_and_nowhere_else(tmp_path, compress):
    file = tmp_path / "items"
    file.write_bytes(compress(b"\xef\xbb\xbf1\n\xef\xbb\xbf2\n"))
    assert [line.value for line in read_lines(str(file))] == [b"1\n", b"\xef\xbb\xbf2\n"]


def test_what_can_be_read_only_once_is_known(tmp_path):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    names = ["-", "/dev/null", *(str(tmp_path / name) for name in ("pipe", "file", "missing")), str(tmp_path)]
    assert [name for name in names if reads_once(name)] == names[:3]


def test_a_file_is_refused_before_anything_of_it_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    require_readable(str(tmp_path / "pipe"))
    require_readable(str(Path(__file__)))
    for name in ("missing", "."):
        with pytest.raises(Misconfigured, match=r"No such file|Is a directory"):
            require_readable(str(tmp_path / name))
