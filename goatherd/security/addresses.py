"""Which addresses are of the public Internet: what others name is not to reach into one's own network."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address

_NAT64 = int(IPv6Address("64:ff9b::")) >> 32


def is_public(address: Address) -> bool:
    """Whether it is an address of the public Internet, also if it is wrapped in one of IPv6."""
    if isinstance(address, IPv6Address):
        wrapped = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if wrapped is None and int(address) >> 32 == _NAT64:
            wrapped = IPv4Address(int(address) & 0xFFFF_FFFF)
        if wrapped is not None:
            return is_public(wrapped)
    return address.is_global and not (
        address.is_multicast
        or address.is_reserved
        or (isinstance(address, IPv6Address) and address.is_site_local)
    )


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own, and nobody else's."""
    host = host.strip("[]").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def may_be_public(host: str) -> bool:
    """Whether a URL's host may be public, as far as can be told without resolving its name."""
    if is_loopback(host):
        return False
    try:
        return is_public(ip_address(host.strip("[]").rstrip(".")))
    except ValueError:
        return True
