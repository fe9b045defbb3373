//! IPComp with DEFLATE (RFC 3173, RFC 2394): makes payloads smaller before encryption makes that impossible.
//!
//! ```text
//!   transport   │ IP header │ next · 0 · CPI │ compressed upper layer
//!   tunnel      │ outer IP  │ next · 0 · CPI │ compressed inner packet
//! ```
//!
//! A payload below the SA's threshold, or one that does not shrink by more than the header, goes as it is (2.2): in
//! transport mode the packet stays what it was, in tunnel mode it is plain IP in IP, which the receiver takes for a
//! packet of the SA between the same ends.
//!
//! Each packet is a stream of its own, as datagrams get lost. What inflates may not become longer than a packet can be, so a
//! small packet cannot make the router write more than 64 KiB. The state of DEFLATE is a third of a megabyte, and each
//! thread has one.
//!
//! Deliberately not here: the dictionary of earlier packets, other algorithms, and adapting to payloads that do not shrink
//! (3173, 2.2, a MAY).

use crate::{
    esp::{
        Layout, finished,
        input::settle,
        output::inherited,
        transport::{self, describe},
    },
    ip,
};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use kern::{Mbuf, Why};
use std::cell::RefCell;
use wire::IpProto;

/// Octets of the header.
pub(crate) const HEADER: usize = 4;
/// The longest that anything inflates to.
const LONGEST: usize = 65_535 + 40;

struct Deflate {
    compress: Compress,
    decompress: Decompress,
    out: Box<[u8]>,
}

thread_local! {
    static DEFLATE: RefCell<Deflate> = RefCell::new(Deflate {
        compress: Compress::new(Compression::fast(), false),
        decompress: Decompress::new(false),
        out: vec![0; LONGEST].into_boxed_slice(),
    });
}

/// Compresses the end of the packet, from `from` on, behind a header; false if it is better left alone.
fn compress(m: &mut Mbuf, from: usize, header: [u8; HEADER]) -> Result<bool, Why> {
    DEFLATE.with_borrow_mut(|deflate| {
        let payload = m.data().get(from..).ok_or(Why::IpcompMalformed)?;
        let room = payload.len().saturating_sub(HEADER + 1).min(LONGEST);
        deflate.compress.reset();
        let status = deflate.compress.compress(payload, &mut deflate.out[..room], FlushCompress::Finish);
        if !matches!(status, Ok(Status::StreamEnd)) {
            return Ok(false);
        }
        let len = deflate.compress.total_out() as usize;
        m.truncate(from);
        let place = m.append(HEADER + len)?;
        place[..HEADER].copy_from_slice(&header);
        place[HEADER..].copy_from_slice(&deflate.out[..len]);
        Ok(true)
    })
}

/// Compresses the packet's payload or, in tunnel mode, the packet.
pub(crate) fn encapsulate(layout: &Layout, m: &mut Mbuf, number: u64) -> Result<(), Why> {
    finished(m)?;
    let cpi = [layout.spi[2], layout.spi[3]];
    if layout.is_tunnel() {
        let (class, df, next) = inherited(m.data())?;
        let header = [next.0, 0, cpi[0], cpi[1]];
        let shrinks = m.len() >= layout.threshold() && compress(m, 0, header)?;
        let proto = if shrinks { IpProto::IPCOMP } else { next };
        let total = layout.ip() + m.len();
        m.prepend(layout.ip())?;
        layout.write_ip(m.data_mut(), total, class, df, number as u16, proto)?;
        layout.label(m);
        layout.describe_outer(m, df, proto);
        return Ok(());
    }
    let front = ip::front(m.data())?;
    let header = [front.next.0, 0, cpi[0], cpi[1]];
    if m.len() - front.at < layout.threshold() || !compress(m, front.at, header)? {
        describe(layout, m, front.at, front.next);
        return Ok(());
    }
    ip::announce(m.data_mut(), front.field, IpProto::IPCOMP)?;
    describe(layout, m, front.at, IpProto::IPCOMP);
    Ok(())
}

/// Whether this can be a packet of the SA at all.
pub(crate) fn look(m: &Mbuf) -> Result<(), Why> {
    if m.len() < m.l4() + HEADER && m.hdr().proto == IpProto::IPCOMP.0 {
        return Err(Why::IpcompMalformed);
    }
    Ok(())
}

/// Inflates a packet and takes the header, in tunnel mode the outer one too, off. Plain IP in IP of a tunnel only loses its
/// outer header.
pub(crate) fn decapsulate(layout: &Layout, m: &mut Mbuf, sa: u32) -> Result<(), Why> {
    let at = m.l4();
    if m.hdr().proto != IpProto::IPCOMP.0 {
        let (next, end) = (IpProto(m.hdr().proto), m.len());
        return settle(layout, m, at, end, next, sa);
    }
    let header: [u8; HEADER] =
        *m.data().get(at..).and_then(<[u8]>::first_chunk).ok_or(Why::IpcompMalformed)?;
    let next = IpProto(header[0]);
    let takes_off = layout.takes_off(next)?;
    inflate(m, at)?;
    let end = m.len();
    if takes_off {
        settle(layout, m, at + HEADER, end, next, sa)
    } else {
        transport::decapsulate(m, IpProto::IPCOMP, HEADER, end, next, sa)
    }
}

/// Inflates what is behind the header at `at`, in place.
fn inflate(m: &mut Mbuf, at: usize) -> Result<(), Why> {
    DEFLATE.with_borrow_mut(|deflate| {
        let compressed = m.data().get(at + HEADER..).ok_or(Why::IpcompMalformed)?;
        deflate.decompress.reset(false);
        let status = deflate.decompress.decompress(compressed, &mut deflate.out, FlushDecompress::Finish);
        if !matches!(status, Ok(Status::StreamEnd)) {
            return Err(Why::IpcompInflate);
        }
        let len = deflate.decompress.total_out() as usize;
        m.truncate(at + HEADER);
        m.append(len)?.copy_from_slice(&deflate.out[..len]);
        Ok(())
    })
}
