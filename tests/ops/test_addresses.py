import pytest

from nearkin.ops.addresses import split_address, split_addresses, split_parts, split_target


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("kafka-1.internal:9092", ("kafka-1.internal", 9092)),
        ("my_broker:65535", ("my_broker", 65535)),
        ("[::1]:7700", ("::1", 7700)),
        ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
    ],
)
def test_an_address_is_a_host_and_a_port(text, parts):
    assert split_address(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        *("", "foo", "foo:", ":9092", "foo:x", "foo:63x4", "foo:-1", "foo:1:2", "::1:7700"),
        *("a b:1", "http://foo:1", "u@h:1", "h:１"),
    ],
)
def test_what_is_no_address_is_told_so(text):
    with pytest.raises(ValueError, match="is not host:port"):
        split_address(text)


@pytest.mark.parametrize("text", ["foo:0", "foo:65536", "foo:99999"])
def test_a_port_is_within_its_range(text):
    with pytest.raises(ValueError, match="is not from 1 to 65535"):
        split_address(text)


def test_port_0_is_one_to_listen_on():
    assert split_address("127.0.0.1:0", least_port=0) == ("127.0.0.1", 0)


@pytest.mark.parametrize("text", ["a..b:1", "x" * 64 + ":1"])
def test_a_host_that_no_resolver_takes_is_refused(text):
    with pytest.raises(ValueError, match="not a name that can be resolved"):
        split_address(text)


def test_several_are_separated_by_commas():
    assert split_addresses("a:1, b:2") == [("a", 1), ("b", 2)]
    with pytest.raises(ValueError, match="'foo'"):
        split_addresses("a:1,foo")


@pytest.mark.parametrize("text", ["h:1", "dns:///h:1", "dns://8.8.8.8/h:1", "dns:h:1", "ipv4:10.0.0.1:1,10.0.0.2:1"])
def test_what_grpc_connects_to_is_an_address_or_names_its_resolver(text):
    split_target(text)


@pytest.mark.parametrize("text", ["h", "http://h:1", "h:1,g:1", "dns:///h", "unix:/tmp/s"])
def test_what_grpc_does_not_connect_to_is_refused(text):
    with pytest.raises(ValueError, match="is not host:port"):
        split_target(text)


def test_parts_are_named_with_their_addresses():
    assert split_parts(" indexer-live = 10.0.0.5:9101 ,feedback=[::1]:9103,") == {
        "indexer-live": "10.0.0.5:9101",
        "feedback": "[::1]:9103",
    }
    assert split_parts("") == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("feedback", "is not NAME=HOST:PORT"),
        ("=10.0.0.5:9101", "is not NAME=HOST:PORT"),
        ("feedback=10.0.0.5", "is not host:port"),
        ("feedback=h:1,feedback=h:2", "is named twice"),
    ],
)
def test_what_names_no_part_is_told_so(text, problem):
    with pytest.raises(ValueError, match=problem):
        split_parts(text)
