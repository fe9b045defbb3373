//! The link header of `enc0`: `struct enchdr` of OpenBSD's `net/if_enc.h`, link type ENC (109).
//!
//! ```text
//!   0            4            8            12
//!   ├────────────┼────────────┼────────────┼─────────
//!   │ family     │ SPI        │ flags      │ packet
//!   │ host order │ as sent    │ host order │
//! ```

use ipsec::sa::SaConfig;

/// Octets of it.
pub(crate) const HEADER: usize = 12;

/// `AF_INET` of all BSDs.
const INET: u32 = 2;
/// `AF_INET6` of OpenBSD, where enc(4) comes from. tcpdump knows those of the others, too.
const INET6: u32 = 24;
/// `M_CONF`: it is encrypted outside, or was.
const CONFIDENTIAL: u32 = 0x0400;
/// `M_AUTH`: it is authenticated outside, or was.
const AUTHENTIC: u32 = 0x0800;

/// In front of a packet of this family (4 or 6) that this SA protects.
pub(crate) fn header(family: u8, sa: &SaConfig) -> [u8; HEADER] {
    let family = if family == 4 { INET } else { INET6 };
    let mut flags = 0;
    if sa.suite.is_confidential() {
        flags |= CONFIDENTIAL;
    }
    if sa.suite.is_authentic() {
        flags |= AUTHENTIC;
    }
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&family.to_ne_bytes());
    header[4..8].copy_from_slice(&sa.spi.0.to_be_bytes());
    header[8..].copy_from_slice(&flags.to_ne_bytes());
    header
}
