import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearkin.media.address import SPECIAL, why_refused
from nearkin.ops.media_sources import METADATA, parse_networks


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.1.1", "172.16.0.1",
        "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.168.255.255", "198.18.0.1", "198.51.100.1", "203.0.113.1",
        "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "169.254.169.254", "168.63.129.16",
        "100.100.100.200", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1",
        "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::",
        "3fff::1", "5f00::1", "4000::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
        "2600::1%eth0",
    ],
)  # fmt: skip
def test_what_is_not_public_is_refused(address):
    assert why_refused(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "93.184.216.34",
        "172.15.255.255",
        "172.32.0.0",
        "100.128.0.0",
        "192.169.0.0",
        "2606:4700::1111",
        "2a00:1450:4001::1",
    ],
)
def test_what_is_public_may_be_connected_to(address):
    assert why_refused(ipaddress.ip_address(address)) is None


@given(st.ip_addresses())
def test_nothing_that_the_standard_library_calls_local_is_let_through(address):
    local = (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )
    assert not local or why_refused(address)


@pytest.mark.parametrize(("network", "word"), SPECIAL)
def test_a_special_network_is_refused_to_its_ends(network, word):
    assert why_refused(network[0])
    assert why_refused(network[-1])


def test_a_network_that_is_admitted_may_be_reached_and_no_other():
    admitted = parse_networks("10.20.0.0/16, ::1/128")

    assert why_refused(ipaddress.ip_address("10.20.255.255"), admitted) is None
    assert why_refused(ipaddress.ip_address("::1"), admitted) is None
    assert why_refused(ipaddress.ip_address("10.21.0.0"), admitted) == "private"
    assert why_refused(ipaddress.ip_address("::ffff:10.20.0.1"), admitted)


@pytest.mark.parametrize("address", sorted(METADATA, key=str))
def test_a_clouds_metadata_are_never_reached(address):
    admitted = parse_networks("10.0.0.0/8,100.64.0.0/10,fc00::/7")

    assert why_refused(address, admitted) == "of a cloud's metadata"
