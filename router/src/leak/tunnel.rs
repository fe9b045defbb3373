//! The tunnel of the laboratory: several SAs each way, as to a peer who speaks with several SPIs, and the peer's own.
//!
//! An SA has a few tickets, and asks its caller to come again when they are out; NetBSD's `crp_ret_q` has no limit. So that
//! none is met here, traffic is dealt out over so many SAs that their tickets are more than the packets the NIC lets wait.

use super::real::SetupError;
use ipsec::{
    sa::{Handling, Lifetime, Mode, Padding, Protocol, Sa, SaConfig, SaIndex, Setup, Spi},
    transform::Suite,
};
use kern::{Mbuf, secret::SecretBytes, time::Clock};
use std::{net::IpAddr, sync::Arc};

/// SAs each way.
const SAS: u32 = 128;
/// The SPI of the first outbound one, and of the first inbound one.
const FIRST: [u32; 2] = [0x1000, 0x2000];

/// SAs by number.
pub(super) struct Tunnel {
    out: Vec<Arc<Sa>>,
    inbound: Vec<Arc<Sa>>,
    peer: Vec<Arc<Sa>>,
}

impl Tunnel {
    /// For this many virtual CPUs.
    pub(super) fn new(vcpus: usize, v6: bool) -> Result<Tunnel, SetupError> {
        let us: IpAddr = if v6 { "2001:db8::1" } else { "203.0.113.1" }.parse().map_err(SetupError::of)?;
        let peer: IpAddr = if v6 { "2001:db8::2" } else { "203.0.113.2" }.parse().map_err(SetupError::of)?;
        let sas = |src, dst, first| -> Result<Vec<_>, _> {
            (0..SAS).map(|n| sa(src, dst, first + n, vcpus)).collect()
        };
        let [ours, theirs] = FIRST;
        Ok(Tunnel {
            out: sas(us, peer, ours)?,
            inbound: sas(peer, us, theirs)?,
            peer: sas(peer, us, theirs)?,
        })
    }

    /// The SA that seals our packet of this number.
    pub(super) fn out(&self, number: u32) -> &Arc<Sa> {
        &self.out[place(number)]
    }

    /// The SA that seals the peer's packet of this number.
    pub(super) fn peer(&self, number: u32) -> &Arc<Sa> {
        &self.peer[place(number)]
    }

    /// The SA that opens this packet, by its SPI.
    pub(super) fn inbound(&self, m: &Mbuf) -> &Arc<Sa> {
        let spi =
            m.data().get(m.l4()..).and_then(|esp| esp.first_chunk()).copied().map_or(0, u32::from_be_bytes);
        &self.inbound[(spi.wrapping_sub(FIRST[1]) % SAS) as usize]
    }
}

/// Where packets of this number go: what kind a packet is hangs on its number's last bits, so others decide.
fn place(number: u32) -> usize {
    (number.wrapping_mul(0x9e37_79b9) >> 16) as usize % SAS as usize
}

/// A packet's number: the last four octets of what the laboratory sends.
pub(super) fn number_of(m: &Mbuf) -> u32 {
    m.data().last_chunk().copied().map_or(0, u32::from_be_bytes)
}

fn sa(src: IpAddr, dst: IpAddr, spi: u32, workers: usize) -> Result<Arc<Sa>, SetupError> {
    let suite = Suite::Aes128Gcm16;
    let config = SaConfig {
        src,
        dst,
        spi: Spi(spi),
        protocol: Protocol::Esp,
        mode: Mode::Tunnel,
        encap: None,
        reqid: 0,
        suite,
        esn: false,
        replay: 4096,
        peer_window: 32,
        padding: Padding::Lenient,
        handling: Handling::default(),
        soft: Lifetime::default(),
        hard: Lifetime::default(),
    };
    let key: Vec<u8> = (0..suite.material_len()).map(|i| (i * 7 + spi as usize) as u8).collect();
    let key = Arc::new(SecretBytes::copy_of(&key).map_err(SetupError::of)?);
    let setup = Setup { workers, ..Setup::new(Clock::Real.now()) };
    Sa::new(SaIndex(spi), config, key, &setup).map(Arc::new).map_err(SetupError::of)
}
