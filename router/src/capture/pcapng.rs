//! The file that `softnet capture` writes: pcapng, one section, one interface, nanoseconds.
//! draft-ietf-opsawg-pcapng says what the blocks are.

use crate::control::capture::{CaptureReport, FrameReport, TapReport};
use pcap_file::{
    DataLink, PcapError,
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
            interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption},
        },
    },
};
use std::{
    io::{self, Write},
    time::Duration,
};

/// The first two bits of `epb_flags`.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
/// `if_tsresol`: 10^-9 s.
const NANOSECONDS: u8 = 9;

/// Writes a capture.
pub struct Recorder<W: Write> {
    writer: PcapNgWriter<W>,
    last: u64,
}

impl<W: Write> Recorder<W> {
    /// Begins a file about a tap.
    pub fn new(to: W, tap: &TapReport) -> io::Result<Recorder<W>> {
        let mut writer = PcapNgWriter::new(to).map_err(reason)?;
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::from(u32::from(tap.link_type)),
            snaplen: tap.snap,
            options: vec![
                InterfaceDescriptionOption::IfName(tap.name.as_str().into()),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        writer.write_pcapng_block(interface).map_err(reason)?;
        Ok(Recorder { writer, last: 0 })
    }

    /// Writes a packet.
    pub fn frame(&mut self, frame: &FrameReport) -> io::Result<()> {
        self.last = frame.at;
        let block = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::from_nanos(frame.at),
            original_len: frame.len,
            data: frame.data.0.as_slice().into(),
            options: vec![EnhancedPacketOption::Flags(if frame.inbound { INBOUND } else { OUTBOUND })],
        };
        self.writer.write_pcapng_block(block).map_err(reason)?;
        Ok(())
    }

    /// Hands on what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.get_mut().flush()
    }

    /// Ends the file with what is known of the whole; gives back what was written to.
    pub fn finish(mut self, report: &CaptureReport) -> io::Result<W> {
        let block = InterfaceStatisticsBlock {
            interface_id: 0,
            // Two halves, the high one first, and each in the order of the section; the crate writes it as one number.
            timestamp: if cfg!(target_endian = "little") { self.last.rotate_left(32) } else { self.last },
            options: vec![
                InterfaceStatisticsOption::IsbIfRecv(report.packets + report.lost),
                InterfaceStatisticsOption::IsbIfDrop(report.lost),
            ],
        };
        self.writer.write_pcapng_block(block).map_err(reason)?;
        self.flush()?;
        Ok(self.writer.into_inner())
    }
}

/// All that can go wrong is writing.
fn reason(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}
