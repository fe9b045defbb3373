//! Fingerprints by number, as rules are evaluated. Names have numbers for as long as the process runs (see [`Names`]), so
//! rules that stay when others are loaded mean the same systems in another file of fingerprints.

use std::{cell::OnceCell, collections::HashMap};

use wire::IpProto;

use super::{
    Fingerprints, Syn, System, is_unknown,
    signature::{Layout, Signature},
};
use crate::{
    ids::{Names, TooManyNames},
    packet::Packet,
};

/// A system by the numbers of its names; 0 is no version, or no subtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Os {
    class: u16,
    version: u16,
    subtype: u16,
}

impl Os {
    fn of(system: &System, names: &mut Names) -> Result<Os, TooManyNames> {
        let mut number = |name: &str| if name.is_empty() { Ok(0) } else { names.os(name) };
        Ok(Os {
            class: number(&system.class)?,
            version: number(&system.version)?,
            subtype: number(&system.subtype)?,
        })
    }
}

/// What `os` of a rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// `unknown`: there is no fingerprint.
    Unknown,
    /// A class, and a version and a subtype unless they are 0.
    System(Os),
    /// What no fingerprint is of, since they were flushed.
    Nothing,
}

impl Asked {
    /// What a rule asks for by this name.
    pub(crate) fn of(name: &str, all: &Fingerprints, names: &mut Names) -> Result<Asked, TooManyNames> {
        if is_unknown(name) {
            return Ok(Asked::Unknown);
        }
        match all.find(name) {
            Some(system) => Os::of(&system, names).map(Asked::System),
            None => Ok(Asked::Nothing),
        }
    }

    /// Whether the sender of a packet is one of these; it may be any of `systems`.
    pub(crate) fn matches(self, systems: Option<&[Os]>) -> bool {
        match self {
            Asked::Unknown => systems.is_none(),
            Asked::System(Os { class, version, subtype }) => systems.unwrap_or(&[]).iter().any(|os| {
                os.class == class
                    && (version == 0 || os.version == version)
                    && (subtype == 0 || os.subtype == subtype)
            }),
            Asked::Nothing => false,
        }
    }
}

/// A signature, and whose it is.
type Owned = (Signature, Box<[Os]>);

/// All signatures by the layout of their options, those with the same layout in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct Known(HashMap<Layout, Vec<Owned>>);

impl Known {
    pub(crate) fn new(all: &Fingerprints, names: &mut Names) -> Result<Known, TooManyNames> {
        let mut known: HashMap<Layout, Vec<Owned>> = HashMap::new();
        for (signature, systems) in &all.all {
            let systems = systems.iter().map(|s| Os::of(s, names)).collect::<Result<_, _>>()?;
            known.entry(signature.layout).or_default().push((*signature, systems));
        }
        Ok(Known(known))
    }

    /// The systems whose signature is the first that a SYN fits.
    fn systems(&self, syn: &Syn) -> Option<&[Os]> {
        let found = self.0.get(&syn.layout)?.iter().find(|(signature, _)| signature.fits(syn))?;
        Some(&found.1)
    }
}

/// The sender of a packet, as far as its SYN betrays it. It is looked at when a rule asks, and once.
pub(crate) struct Sender<'p, 'r> {
    known: &'r Known,
    /// From the IP header on.
    data: &'p [u8],
    systems: OnceCell<Option<&'r [Os]>>,
}

impl<'p, 'r> Sender<'p, 'r> {
    pub(crate) const fn new(known: &'r Known, data: &'p [u8]) -> Sender<'p, 'r> {
        Sender { known, data, systems: OnceCell::new() }
    }

    /// The packet, from its IP header on.
    pub(crate) const fn packet(&self) -> &'p [u8] {
        self.data
    }

    /// Whether it is one of these; `p` is what the packet was read as.
    #[cold]
    pub(crate) fn is(&self, wanted: Asked, p: &Packet) -> bool {
        let systems = || Syn::read(p, self.data).and_then(|syn| self.known.systems(&syn));
        IpProto(p.proto) == IpProto::TCP && wanted.matches(*self.systems.get_or_init(systems))
    }
}
