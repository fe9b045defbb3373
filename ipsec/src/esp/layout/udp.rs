//! The UDP header in front of ESP (RFC 3948), for SAs that have one.

use super::{ESP, Layout};
use kern::Why;
use wire::IpProto;

impl Layout {
    /// Octets of the UDP header in front of ESP: eight or none.
    #[inline(always)]
    pub(in crate::esp) const fn udp(&self) -> usize {
        self.udp as usize
    }

    /// Whether its packets have a UDP checksum.
    #[inline(always)]
    pub(crate) const fn has_checksum(&self) -> bool {
        self.udp > 0 && self.v6
    }

    /// Source and destination port of its packets.
    pub(crate) const fn ports(&self) -> [u8; 4] {
        self.ports
    }

    /// Whether these are the source and the destination port of its packets.
    pub(crate) fn has_ports(&self, ports: &[u8]) -> bool {
        self.udp > 0 && self.ports == ports
    }

    /// As [`write_head`](Self::write_head), with a UDP header in front of that of ESP.
    #[inline(never)]
    pub(super) fn write_head_in_udp(
        &self,
        head: &mut [u8],
        total: usize,
        class: u8,
        df: bool,
        seq: u64,
    ) -> Result<(), Why> {
        self.write_ip(head, total, class, df, seq as u16, IpProto::UDP)?;
        let head = head.get_mut(self.ip()..).ok_or(Why::Headroom)?;
        self.write_esp(head, total - self.ip(), seq)
    }

    /// Writes the ESP header, in front of it the UDP header if there is one, of a packet that is `len` octets from there on.
    /// The checksum is 0 until the packet is sealed.
    pub(in crate::esp) fn write_esp(&self, head: &mut [u8], len: usize, seq: u64) -> Result<(), Why> {
        let head = head.get_mut(..self.udp() + ESP).ok_or(Why::Headroom)?;
        head.copy_from_slice(&self.template[self.ip()..self.esp() + ESP]);
        if self.udp > 0 {
            let len = u16::try_from(len).map_err(|_| Why::EspTooBig)?;
            head[4..6].copy_from_slice(&len.to_be_bytes());
        }
        head[self.udp() + 4..].copy_from_slice(&(seq as u32).to_be_bytes());
        Ok(())
    }
}
