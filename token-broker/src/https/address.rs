//! Which addresses a login host may have: the guard against a name that leads inside.
//!
//! It is asked after the name was looked up, so no trick with names passes it. Private networks
//! are allowed (Private Link); what answers only on this machine or this link is not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Azure's host agent: DNS, health and goal state of the machine
/// (learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16).
const AZURE_HOST_AGENT: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
/// Metadata services of other clouds outside the link-local range.
const OTHER_METADATA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
const OTHER_METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254);

/// Whether a public service can have this address.
pub fn is_allowed(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            !(v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4 == AZURE_HOST_AGENT
                || v4 == OTHER_METADATA)
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6 == OTHER_METADATA_V6
                || embedded(v6).is_some_and(|v4| !is_allowed(IpAddr::V4(v4))))
        }
    }
}

/// The IPv4 address in one of NAT64's well-known prefix (RFC 6052 §2.1).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.octets() {
        [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => {
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k09_addresses_of_this_machine_and_this_link_are_refused() {
        let cases = [
            ("20.190.160.1", true),
            ("10.1.2.3", true),
            ("2603:1006:2000::1", true),
            ("64:ff9b::14be:a001", true),
            ("127.0.0.1", false),
            ("127.8.8.8", false),
            ("0.0.0.0", false),
            ("169.254.169.254", false),
            ("169.254.0.1", false),
            ("168.63.129.16", false),
            ("100.100.100.200", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("fd00:ec2::254", false),
            ("::ffff:169.254.169.254", false),
            ("::ffff:127.0.0.1", false),
            ("64:ff9b::a9fe:a9fe", false),
        ];
        for (address, expected) in cases {
            assert_eq!(is_allowed(address.parse().unwrap()), expected, "{address}");
        }
    }
}
