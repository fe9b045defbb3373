//! Statements as setkey's language has them. Nothing of one is left out, and nothing that is new to the language goes by here
//! unseen: no `match` has a way for all others.

use ipsec::{
    conf::statement::{
        Add, Algorithm, At, Command, DirectionWord, Extension, FlagWord, ModeWord, PolicyAdd, PolicyName,
        Protocol, Request, SaName, Treatment,
    },
    sa::{Df, Fragment},
    selector::{Addresses, Ports, Upper},
    spd::Level,
};
use std::fmt::{Display, Write};

/// What `high` and `low` are away from `def`.
const STEP: i64 = 1 << 30;

/// A statement with its semicolon.
pub(crate) fn command(command: &Command) -> String {
    let text = match command {
        Command::Add(a) => format!("add {}", add(a)),
        Command::Update(a) => format!("update {}", add(a)),
        Command::Get(name) => format!("get {}", sa_name(name)),
        Command::Delete(name) => format!("delete {}", sa_name(name)),
        Command::DeleteAll { src, dst, protocol } => {
            format!("deleteall {} {} {}", src.value, dst.value, protocol.value.name())
        }
        Command::Flush(protocol) => format!("flush {}", protocol.map_or("", Protocol::name)),
        Command::Dump(protocol) => format!("dump {}", protocol.map_or("", Protocol::name)),
        Command::SpdAdd(policy) => format!("spdadd {}", policy_add(policy)),
        Command::SpdUpdate(policy) => format!("spdupdate {}", policy_add(policy)),
        Command::SpdDelete(name) => format!("spddelete {}", policy_name(name)),
        Command::SpdFlush => "spdflush".to_owned(),
        Command::SpdDump => "spddump".to_owned(),
        Command::Exit => "exit".to_owned(),
    };
    text + " ;\n"
}

fn end(address: &impl Display, port: Option<&At<u16>>) -> String {
    port.map_or_else(|| address.to_string(), |port| format!("{address}[{}]", port.value))
}

fn sa_name(name: &SaName) -> String {
    let SaName { src, dst, ports: [src_port, dst_port], protocol, spi } = name;
    let (src, dst) = (end(&src.value, src_port.as_ref()), end(&dst.value, dst_port.as_ref()));
    format!("{src} {dst} {} {:#x}", protocol.value.name(), spi.value.0)
}

fn add(add: &Add) -> String {
    let Add { name, extensions, encryption, authentication, compression } = add;
    let mut text = sa_name(name);
    for At { value, .. } in extensions {
        write!(text, " {}", extension(value)).unwrap();
    }
    for (option, algorithm) in [("-E", encryption), ("-A", authentication), ("-C", compression)] {
        let Some(Algorithm { name, key }) = algorithm else { continue };
        write!(text, " {option} {}", name.value).unwrap();
        match key.as_ref().map(|key| key.value.expose()) {
            None => {}
            Some([]) => text += " \"\"",
            Some(octets) => {
                text += " 0x";
                for octet in octets {
                    write!(text, "{octet:02x}").unwrap();
                }
            }
        }
    }
    text
}

const fn mode(mode: ModeWord) -> &'static str {
    match mode {
        ModeWord::Transport => "transport",
        ModeWord::Tunnel => "tunnel",
        ModeWord::Beet => "beet",
        ModeWord::Any => "any",
    }
}

const fn flag(flag: FlagWord) -> &'static str {
    match flag {
        FlagWord::ZeroPad => "zero-pad",
        FlagWord::RandomPad => "random-pad",
        FlagWord::SeqPad => "seq-pad",
        FlagWord::NocyclicSeq => "nocyclic-seq",
        FlagWord::Align8 => "align8",
    }
}

fn extension(extension: &Extension) -> String {
    match extension {
        Extension::Mode(m) => format!("-m {}", mode(*m)),
        Extension::Inner(src, dst) => format!("-inner {src} {dst}"),
        Extension::Reqid(n) => format!("-u {n}"),
        Extension::Worker(n) => format!("-pcpu-num {n}"),
        Extension::Replay(n) => format!("-r {n}"),
        Extension::Flag(f) => format!("-f {}", flag(*f)),
        Extension::HardSeconds(n) => format!("-lh {n}"),
        Extension::SoftSeconds(n) => format!("-ls {n}"),
        Extension::HardBytes(n) => format!("-bh {n}"),
        Extension::SoftBytes(n) => format!("-bs {n}"),
        Extension::HardPackets(n) => format!("-ph {n}"),
        Extension::SoftPackets(n) => format!("-ps {n}"),
        Extension::Esn => "-esn".to_owned(),
        Extension::Df(Df::Copy) => "-df copy".to_owned(),
        Extension::Df(Df::Set) => "-df set".to_owned(),
        Extension::Df(Df::Clear) => "-df clear".to_owned(),
        Extension::Fragment(Fragment::Before) => "-frag before".to_owned(),
        Extension::Fragment(Fragment::After) => "-frag after".to_owned(),
        Extension::Dscp(n) => format!("-dscp {n}"),
        Extension::NoEcn => "-noecn".to_owned(),
        Extension::Ttl(n) => format!("-ttl {n}"),
        Extension::FlowLabel => "-flow-label".to_owned(),
        Extension::Tfc(n) => format!("-tfc {n}"),
        Extension::Threshold(n) => format!("-threshold {n}"),
        Extension::Sequence(n) => format!("-seq {n}"),
        Extension::Natt([(src, sport), (dst, dport)]) => format!("-natt {src}[{sport}] {dst}[{dport}]"),
        // Of these two only that they were said is kept.
        Extension::NattMtu => "-natt_mtu 1400".to_owned(),
        Extension::Keepalive(n) => format!("-keepalive {n}"),
        Extension::Context => "-ctx 1 1 \"context\"".to_owned(),
    }
}

fn range(addresses: Addresses, ports: Option<Ports>) -> String {
    ports.map_or_else(|| addresses.to_string(), |ports| format!("{addresses}[{ports}]"))
}

fn policy_name(name: &PolicyName) -> String {
    let PolicyName { src, dst, upper, direction } = name;
    let (ports, upper) = match *upper {
        Upper::Any => ((None, None), "any".to_owned()),
        Upper::Ports { src_port, dst_port } => ((src_port, dst_port), "any".to_owned()),
        Upper::Proto { proto, src_port, dst_port } => ((src_port, dst_port), proto.0.to_string()),
        Upper::Icmp { proto, kind, code: None } => ((None, None), format!("{} {kind}", proto.0)),
        Upper::Icmp { proto, kind, code: Some(code) } => ((None, None), format!("{} {kind},{code}", proto.0)),
    };
    let direction = match direction.value {
        DirectionWord::In => "in",
        DirectionWord::Out => "out",
        DirectionWord::Fwd => "fwd",
    };
    format!("{} {} {upper} -P {direction}", range(src.value, ports.0), range(dst.value, ports.1))
}

fn policy_add(add: &PolicyAdd) -> String {
    let PolicyAdd { name, priority, treatment } = add;
    let priority = match i32::try_from(*priority) {
        Ok(n) => n.to_string(),
        Err(_) if *priority > 0 => format!("high + {}", priority - STEP),
        Err(_) => format!("low - {}", -STEP - priority),
    };
    let treatment = match treatment {
        Treatment::None => "none".to_owned(),
        Treatment::Discard => "discard".to_owned(),
        Treatment::Ipsec(requests) => {
            requests.iter().fold("ipsec".to_owned(), |text, r| text + " " + &request(r))
        }
    };
    format!("{} priority {priority} {treatment}", policy_name(name))
}

fn request(request: &Request) -> String {
    let Request { protocol, mode: asked, ends, ports: [src_port, dst_port], level } = request;
    let ends = ends.as_ref().map_or_else(String::new, |(src, dst)| {
        format!("{}-{}", end(&src.value, src_port.as_ref()), end(&dst.value, dst_port.as_ref()))
    });
    let level = match level.value {
        Level::Default => "default".to_owned(),
        Level::Use => "use".to_owned(),
        Level::Require => "require".to_owned(),
        Level::Unique(id) => format!("unique:{id}"),
    };
    format!("{}/{}/{ends}/{level}", protocol.value.name(), mode(asked.value))
}
