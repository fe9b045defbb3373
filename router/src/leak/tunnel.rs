//! The tunnel of the laboratory: several SAs each way, as to a peer who speaks with several SPIs, and the peer's own.
//!
//! An SA has a few tickets, and asks its caller to come again when they are out; NetBSD's `crp_ret_q` has no limit. So that
//! none is met here, traffic is dealt out over so many SAs that their tickets are more than the packets the NIC lets wait.

use super::{packets::number_of, real::SetupError};
use ipsec::{
    sa::{Handling, Lifetime, Mode, Padding, Protocol, Sa, SaConfig, SaIndex, Setup, Spi},
    transform::{Auth, Suite},
};
use kern::{Mbuf, secret::SecretBytes, time::Clock};
use std::{net::IpAddr, sync::Arc};
use wire::IpProto;

/// SAs each way.
const SAS: u32 = 128;
/// The SPI of the first outbound one, and of the first inbound one. All are CPIs to be negotiated, too (RFC 3173, 3.3).
const FIRST: [u32; 2] = [0x1000, 0x2000];

/// SAs by number.
pub(super) struct Tunnel {
    transform: Protocol,
    out: Vec<Arc<Sa>>,
    inbound: Vec<Arc<Sa>>,
    peer: Vec<Arc<Sa>>,
    /// Out and in, for what IPComp leaves alone: it takes no thread, and does not wait for what does.
    alone: [Arc<Sa>; 2],
}

impl Tunnel {
    /// For this many virtual CPUs.
    pub(super) fn new(vcpus: usize, v6: bool, transform: Protocol) -> Result<Tunnel, SetupError> {
        let us: IpAddr = if v6 { "2001:db8::1" } else { "203.0.113.1" }.parse().map_err(SetupError::of)?;
        let peer: IpAddr = if v6 { "2001:db8::2" } else { "203.0.113.2" }.parse().map_err(SetupError::of)?;
        // On the way out packets went as they were done in 2013: to an SA that has no order it has one worker.
        let sas = |src, dst, first, workers| -> Result<Vec<_>, _> {
            (0..SAS).map(|n| sa(transform, src, dst, first + n, workers)).collect()
        };
        let [ours, theirs] = FIRST;
        let one = |src, dst, first, workers| sa(transform, src, dst, first + SAS, workers);
        Ok(Tunnel {
            alone: [one(us, peer, ours, 1)?, one(peer, us, theirs, vcpus)?],
            transform,
            out: sas(us, peer, ours, 1)?,
            inbound: sas(peer, us, theirs, vcpus)?,
            peer: sas(peer, us, theirs, 1)?,
        })
    }

    /// The SA for a packet of ours.
    pub(super) fn out(&self, m: &Mbuf) -> &Arc<Sa> {
        let [alone, _] = &self.alone;
        let is_short = m.len() < usize::from(alone.config().handling.threshold);
        if self.transform == Protocol::Ipcomp && is_short { alone } else { &self.out[place(number_of(m))] }
    }

    /// The SA that makes the peer's packet of this number.
    pub(super) fn peer(&self, number: u32) -> &Arc<Sa> {
        &self.peer[place(number)]
    }

    /// The SA that opens this packet: by its SPI or CPI, if IPComp has not left it alone.
    pub(super) fn inbound(&self, m: &Mbuf) -> &Arc<Sa> {
        let header = m.data().get(m.l4()..).unwrap_or_default();
        let word = |at: usize| {
            let word = header.get(at..).and_then(<[u8]>::first_chunk);
            word.copied().map_or(0, u32::from_be_bytes)
        };
        let spi = match self.transform {
            Protocol::Esp => word(0),
            Protocol::Ah => word(4),
            Protocol::Ipcomp if m.hdr().proto == IpProto::IPCOMP.0 => word(0) & 0xffff,
            Protocol::Ipcomp => return &self.alone[1],
        };
        &self.inbound[(spi.wrapping_sub(FIRST[1]) % SAS) as usize]
    }
}

/// Where packets of this number go: what kind a packet is hangs on its number's last bits, so others decide.
fn place(number: u32) -> usize {
    (number.wrapping_mul(0x9e37_79b9) >> 16) as usize % SAS as usize
}

fn sa(protocol: Protocol, src: IpAddr, dst: IpAddr, spi: u32, workers: usize) -> Result<Arc<Sa>, SetupError> {
    // IPComp's packets have no numbers.
    let (suite, replay) = match protocol {
        Protocol::Esp => (Suite::Aes128Gcm16, 4096),
        Protocol::Ah => (Suite::Ah(Auth::HmacSha256), 4096),
        Protocol::Ipcomp => (Suite::Deflate, 0),
    };
    let config = SaConfig {
        src,
        dst,
        spi: Spi(spi),
        protocol,
        mode: Mode::Tunnel,
        inner: None,
        worker: None,
        encap: None,
        reqid: 0,
        suite,
        esn: false,
        replay,
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
