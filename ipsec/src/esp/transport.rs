//! Transport mode (RFC 4303, 3.1.1): the packet keeps its IP header, and what is behind it is protected.
//!
//! ```text
//!   before   │ IP header │ upper layer
//!   after    │ IP header │ ESP · IV │ upper layer · padding · pad length · next header │ ICV
//! ```

use super::{
    finished,
    layout::{Layout, TRAILER},
};
use crate::{ip, natt};
use kern::{Mbuf, PktFlags, Why};
use wire::IpProto;

pub(super) fn encapsulate(layout: &Layout, m: &mut Mbuf, seq: u64) -> Result<(), Why> {
    finished(m)?;
    let front = ip::front(m.data())?;
    let pad = layout.pad(m.len() - front.at);
    let tail = m.append(pad + TRAILER + layout.icv())?;
    if let Some(trailer) = tail.get_mut(..pad + TRAILER) {
        trailer[..pad].copy_from_slice(&layout.padding[..pad]);
        trailer[pad] = pad as u8;
        trailer[pad + 1] = front.next.0;
    }
    let len = m.len() - front.at + layout.udp() + layout.esp_iv();
    let header = open_gap(m, front.at, layout.udp() + layout.esp_iv())?;
    layout.write_esp(header, len, seq)?;
    let proto = if layout.udp() > 0 { IpProto::UDP } else { IpProto::ESP };
    ip::announce(m.data_mut(), front.field, proto)?;
    describe(layout, m, front.at, proto);
    Ok(())
}

/// Makes room for a header of `len` octets at `at`; the room, not filled.
pub(crate) fn open_gap(m: &mut Mbuf, at: usize, len: usize) -> Result<&mut [u8], Why> {
    m.prepend(len)?;
    m.data_mut().copy_within(len..len + at, 0);
    m.data_mut().get_mut(at..at + len).ok_or(Why::Headroom)
}

/// Takes the header of `len` octets at `at` out again.
pub(crate) fn close_gap(m: &mut Mbuf, at: usize, len: usize) -> Result<(), Why> {
    if at + len > m.len() {
        return Err(Why::EspMalformed);
    }
    m.data_mut().copy_within(..at, len);
    m.trim_front(len).map_err(|_| Why::EspMalformed)
}

/// Makes the packet's header speak of the protected packet.
pub(crate) fn describe(layout: &Layout, m: &mut Mbuf, at: usize, proto: IpProto) {
    m.set_l3(0);
    m.set_l4(at);
    let h = m.hdr_mut();
    h.proto = proto.0;
    h.flags.set(PktFlags::PROTECTED);
    h.hash = layout.hash;
    h.sa = 0;
    h.state = 0;
    h.state_gen = 0;
}

/// Takes the header of `proto` and `len` octets at `l4`, and what is behind `end`, off an opened packet, in which `next`
/// follows.
pub(crate) fn decapsulate(
    m: &mut Mbuf,
    proto: IpProto,
    len: usize,
    end: usize,
    next: IpProto,
    sa: u32,
) -> Result<(), Why> {
    let at = m.l4();
    let field = ip::announcing(m.data(), at, proto)?;
    m.truncate(end);
    close_gap(m, at, len)?;
    ip::announce(m.data_mut(), field, next)?;
    if natt::source(m).is_some() {
        natt::mend(m, at, next)?;
    }
    let family = m.hdr().family;
    super::input::describe(m, family, sa);
    Ok(())
}
