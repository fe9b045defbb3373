//! What is seen on `enc0`, as far as the file, which is read with the crate that has written it.

use super::bed::{Bed, Datagram, NAMES, Shape, WAN4};
use pcap_file::{
    DataLink,
    pcapng::{
        Block, PcapNgReader,
        blocks::{enhanced_packet::EnhancedPacketOption, interface_statistics::InterfaceStatisticsOption},
    },
};
use router::{
    capture::{CaptureError, Captures, Recorder},
    control::{
        capture::{CaptureRequest, FrameReport, TapReport},
        proto::Octets,
        socket::Session,
    },
};

const ME: Session = Session(7);

fn asked(interface: &str, snap: u32) -> CaptureRequest {
    CaptureRequest { interface: interface.into(), snap }
}

fn open(bed: &mut Bed, side: usize, asked: &CaptureRequest) -> Result<Captures, CaptureError> {
    let mut captures = Captures::default();
    captures.open(ME, asked, &mut bed.net.node(NAMES[side]).router)?;
    Ok(captures)
}

/// Everything that has been seen.
fn frames(captures: &mut Captures) -> Vec<FrameReport> {
    let mut frames = Vec::new();
    loop {
        let before = frames.len();
        captures.take(ME, |frame| {
            let (at, inbound, len) = (frame.at.nanos(), frame.inbound, frame.len);
            frames.push(FrameReport { at, inbound, len, data: Octets(frame.octets.clone()) });
        });
        if frames.len() == before {
            return frames;
        }
    }
}

fn header(family: u32, spi: u32, flags: u32) -> [u8; 12] {
    let mut header = [0; 12];
    header[..4].copy_from_slice(&family.to_ne_bytes());
    header[4..8].copy_from_slice(&spi.to_be_bytes());
    header[8..].copy_from_slice(&flags.to_ne_bytes());
    header
}

/// The packet a router makes of one that it forwards.
fn forwarded(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 6 {
        packet[7] -= 1;
    } else {
        packet[8] -= 1;
        packet[10..12].fill(0);
        let sum = !wire::checksum::fold(wire::checksum::sum(&packet[..20]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

const BOTH: u32 = 0x0c00;
const AUTHENTIC: u32 = 0x0800;

#[test]
fn packets_are_seen_before_they_are_sealed_and_after_they_are_opened() {
    for (workers, locking) in [(1, "fine"), (2, "giant")] {
        let mut bed = Bed::with_tunnel(Shape { workers, locking, ..Shape::default() }, None);
        let mut captures = [0, 1].map(|side| open(&mut bed, side, &asked("enc0", 9216)).unwrap());
        let packets = [false, true].map(|v6| Datagram { v6, len: 300, ..Datagram::default() }.packet());
        for (queue, packet) in packets.iter().enumerate() {
            assert!(bed.send(0, queue % workers, packet));
            bed.run(20);
        }
        let inner = packets.map(forwarded);
        let told = |frames: Vec<FrameReport>| -> Vec<_> {
            frames.into_iter().map(|f| (f.inbound, f.len as usize, f.data.0)).collect()
        };
        let want = |inbound: bool| {
            let one = |family: u32, spi: u32, packet: &Vec<u8>| {
                let frame = [&header(family, spi, BOTH)[..], packet].concat();
                (inbound, frame.len(), frame)
            };
            vec![one(2, 0x1000, &inner[0]), one(24, 0x1002, &inner[1])]
        };
        let [out, into] = captures.each_mut().map(frames);
        assert_eq!(told(out), want(false), "{workers} workers");
        assert_eq!(told(into), want(true), "{workers} workers");
        for (side, captures) in captures.iter_mut().enumerate() {
            assert_eq!((captures.report(ME).packets, captures.report(ME).lost), (2, 0));
            captures.closed(ME, &mut bed.net.node(NAMES[side]).router);
        }
        assert_eq!(bed.arrived(1).len(), 2);
        bed.finish();
    }
}

#[test]
fn each_sa_of_a_bundle_shows_its_packet_and_what_it_does_to_it() {
    let [a, b] = WAN4;
    let [one, other] = ["5a", "5b"].map(|octet| octet.repeat(16));
    let sas = format!(
        "add {a} {b} esp 0x100 -m tunnel -E null -A aes-cmac 0x{one};\n\
         add {a} {b} ah 0x200 -m transport -A aes-cmac 0x{other};\n"
    );
    let policy = |way: &str| {
        format!(
            "spdadd 192.0.2.0/24 198.51.100.0/24 any -P {way} ipsec esp/tunnel/{a}-{b}/require \
             ah/transport/{a}-{b}/require;"
        )
    };
    let (out, into) = (sas.clone() + &policy("out"), sas + &policy("in"));
    let mut bed = Bed::new(Shape::default(), [None; 2], [&out, &into]);
    let mut captures = [0, 1].map(|side| open(&mut bed, side, &asked("enc0", 9216)).unwrap());
    assert!(bed.send(0, 0, &Datagram::default().packet()));
    bed.run(20);
    let [sent, received] = captures.each_mut().map(frames);
    let heads = |frames: &[FrameReport]| -> Vec<_> {
        frames.iter().map(|f| (f.data.0[..12].to_vec(), f.data.0[12 + 9])).collect()
    };
    // Of the sender: the datagram into ESP, then ESP into AH; of the receiver the other way round.
    let [esp, ah] = [0x100, 0x200].map(|spi| header(2, spi, AUTHENTIC).to_vec());
    assert_eq!(heads(&sent), [(esp.clone(), 17), (ah.clone(), 50)]);
    assert_eq!(heads(&received), [(ah, 50), (esp, 17)]);
    bed.finish();
}

#[test]
fn the_file_is_what_the_format_says() {
    let mut bed = Bed::with_tunnel(Shape::default(), None);
    let mut captures = open(&mut bed, 0, &asked("enc0", 96)).unwrap();
    for from in [0, 1] {
        assert!(bed.send(from, 0, &Datagram { from, len: 300, ..Datagram::default() }.packet()));
        bed.run(20);
    }
    let frames = frames(&mut captures);
    let tap = TapReport { name: "enc0".into(), link_type: 109, snap: 96 };
    let mut recorder = Recorder::new(Vec::new(), &tap).unwrap();
    for frame in &frames {
        recorder.frame(frame).unwrap();
    }
    let file = recorder.finish(&captures.report(ME)).unwrap();
    let mut reader = PcapNgReader::new(&file[..]).unwrap();
    let (mut packets, mut lost) = (Vec::new(), None);
    while let Some(block) = reader.next_block() {
        match block.unwrap() {
            Block::InterfaceDescription(interface) => {
                assert_eq!((interface.linktype, interface.snaplen), (DataLink::ENC, 96));
            }
            Block::EnhancedPacket(packet) => {
                let EnhancedPacketOption::Flags(way) = packet.options[0] else { panic!("{packet:?}") };
                packets.push((
                    packet.timestamp.as_nanos() as u64,
                    way,
                    packet.original_len,
                    packet.data.to_vec(),
                ));
            }
            Block::InterfaceStatistics(statistics) => lost = Some(statistics.into_owned().options),
            other => panic!("{other:?}"),
        }
    }
    let want: Vec<_> =
        frames.iter().map(|f| (f.at, if f.inbound { 1 } else { 2 }, 12 + 328, f.data.0.clone())).collect();
    assert_eq!((packets.len(), &packets), (2, &want));
    assert!(packets.iter().all(|p| p.3.len() == 96));
    let statistics = [InterfaceStatisticsOption::IsbIfRecv(2), InterfaceStatisticsOption::IsbIfDrop(0)];
    assert_eq!(lost.unwrap(), statistics);
    bed.finish();
}

#[test]
fn what_cannot_be_captured_is_refused_and_nothing_is_copied_for_who_is_gone() {
    let mut bed = Bed::with_tunnel(Shape::default(), None);
    let refused = |bed: &mut Bed, request: &CaptureRequest| open(bed, 0, request).err().unwrap().to_string();
    assert_eq!(
        refused(&mut bed, &asked("wan0", 96)),
        "\"wan0\" cannot be captured; there are enc0 and pflog0 to pflog15"
    );
    assert_eq!(refused(&mut bed, &asked("enc0", 20)), "20 octets a packet: 96 to 65535 can be captured");
    let router = &mut bed.net.node(NAMES[0]).router;
    let mut captures = Captures::default();
    for n in 0..4 {
        captures.open(Session(n), &asked("enc0", 96), router).unwrap();
    }
    assert_eq!(captures.open(Session(0), &asked("enc0", 96), router), Err(CaptureError::Twice));
    assert_eq!(captures.open(Session(4), &asked("enc0", 96), router), Err(CaptureError::Enough));
    captures.closed(Session(0), router);
    assert_eq!(captures.open(Session(4), &asked("enc0", 96), router), Ok(()));
    assert!(bed.send(0, 0, &Datagram::default().packet()));
    bed.run(20);
    for (session, packets) in [(0, 0), (1, 1), (4, 1)] {
        let mut seen = 0;
        captures.take(Session(session), |_| seen += 1);
        assert_eq!(seen, packets, "session {session}");
    }
    bed.finish();
}

#[test]
fn a_capture_that_nobody_takes_holds_up_nothing() {
    let mut bed = Bed::with_tunnel(Shape::default(), None);
    let mut captures = open(&mut bed, 0, &asked("enc0", 9216)).unwrap();
    let mut arrived = 0;
    for _ in 0..2000 {
        assert!(bed.send(0, 0, &Datagram::default().packet()));
        bed.run(1);
        arrived += bed.arrived(1).len();
    }
    assert_eq!(arrived, 2000);
    let seen = frames(&mut captures).len() as u64;
    assert_eq!((seen, captures.report(ME).lost), (910, 1090));
    bed.finish();
}
