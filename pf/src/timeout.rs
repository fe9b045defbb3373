//! Timeouts (`set timeout`): classes of states, how long a state of a class lives without a packet, and the adaptive
//! pair that makes all of them shorter when states become many.

use std::sync::atomic::{AtomicU32, Ordering};

macro_rules! timeouts {
    ($( $name:ident = $keyword:literal, $normal:literal, $latency:literal, $aggressive:literal, $conservative:literal; )*) => {
        /// A timeout of pf.conf. The first [`Timeout::CLASSES`] are classes that a state can be in.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Timeout { $( #[doc = $keyword] $name, )* }

        impl Timeout {
            /// All, in the order in which pfctl prints those of a rule.
            pub const ALL: &'static [Timeout] = &[ $( Timeout::$name, )* ];

            /// The keyword.
            pub const fn keyword(self) -> &'static str {
                match self { $( Timeout::$name => $keyword, )* }
            }

            /// Seconds, by `set optimization`.
            pub const fn default_of(self, optimization: Optimization) -> u32 {
                let columns = match self { $( Timeout::$name => [$normal, $latency, $aggressive, $conservative], )* };
                columns[optimization as usize]
            }
        }
    };
}

timeouts! {
    TcpFirst = "tcp.first", 120, 180, 30, 3600;
    TcpOpening = "tcp.opening", 30, 35, 5, 900;
    TcpEstablished = "tcp.established", 86400, 86400, 18000, 432000;
    TcpClosing = "tcp.closing", 900, 905, 60, 3600;
    TcpFinwait = "tcp.finwait", 45, 50, 30, 600;
    TcpClosed = "tcp.closed", 90, 95, 30, 180;
    UdpFirst = "udp.first", 60, 60, 60, 60;
    UdpSingle = "udp.single", 30, 30, 30, 30;
    UdpMultiple = "udp.multiple", 60, 60, 60, 60;
    IcmpFirst = "icmp.first", 20, 20, 20, 20;
    IcmpError = "icmp.error", 10, 10, 10, 10;
    OtherFirst = "other.first", 60, 60, 60, 60;
    OtherSingle = "other.single", 30, 30, 30, 30;
    OtherMultiple = "other.multiple", 60, 60, 60, 60;
    Fragment = "frag", 30, 30, 30, 30;
    Interval = "interval", 10, 10, 10, 10;
    AdaptiveStart = "adaptive.start", 0, 0, 0, 0;
    AdaptiveEnd = "adaptive.end", 0, 0, 0, 0;
    SrcTrack = "src.track", 0, 0, 0, 0;
    TcpTsdiff = "tcp.tsdiff", 30, 60, 10, 60;
    SctpFirst = "sctp.first", 120, 120, 120, 120;
    SctpOpening = "sctp.opening", 30, 30, 30, 30;
    SctpEstablished = "sctp.established", 86400, 86400, 86400, 86400;
    SctpClosing = "sctp.closing", 900, 900, 900, 900;
    SctpClosed = "sctp.closed", 90, 90, 90, 90;
}

impl Timeout {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();
    /// How many of them are classes of states.
    pub const CLASSES: usize = Timeout::Fragment as usize;

    /// The timeout with this keyword.
    pub fn of(keyword: &str) -> Option<Timeout> {
        Timeout::ALL.iter().copied().find(|t| t.keyword() == keyword)
    }
}

/// `set optimization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Optimization {
    /// For most networks.
    #[default]
    Normal,
    /// `high-latency`, `satellite`.
    HighLatency,
    /// Forgets idle connections early.
    Aggressive,
    /// Never forgets a legitimate one.
    Conservative,
}

impl Optimization {
    /// The profile with this keyword.
    pub fn of(keyword: &str) -> Option<Optimization> {
        match keyword {
            "normal" | "default" => Some(Optimization::Normal),
            "high-latency" | "satellite" => Some(Optimization::HighLatency),
            "aggressive" => Some(Optimization::Aggressive),
            "conservative" => Some(Optimization::Conservative),
            _ => None,
        }
    }
}

/// All timeouts in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts([u32; Timeout::COUNT]);

impl Timeouts {
    /// The defaults of a profile. The adaptive pair follows the state limit: see [`Timeouts::adapt`].
    pub fn new(optimization: Optimization) -> Timeouts {
        let mut table = [0; Timeout::COUNT];
        for &timeout in Timeout::ALL {
            table[timeout as usize] = timeout.default_of(optimization);
        }
        Timeouts(table)
    }

    /// Seconds of one.
    pub const fn get(&self, timeout: Timeout) -> u32 {
        self.0[timeout as usize]
    }

    /// Sets one.
    pub const fn set(&mut self, timeout: Timeout, seconds: u32) {
        self.0[timeout as usize] = seconds;
    }

    /// Derives the adaptive pair from the state limit: 60 % and 120 % of it.
    pub fn adapt(&mut self, limit: u32) {
        self.set(Timeout::AdaptiveStart, (u64::from(limit) * 6 / 10) as u32);
        self.set(Timeout::AdaptiveEnd, (u64::from(limit) * 12 / 10) as u32);
    }
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts::new(Optimization::Normal)
    }
}

/// Timeouts that the control thread changes while workers read them. A worker may see the old ones for a moment.
#[derive(Debug)]
pub(crate) struct SharedTimeouts([AtomicU32; Timeout::COUNT]);

impl SharedTimeouts {
    pub(crate) fn new(values: &Timeouts) -> SharedTimeouts {
        SharedTimeouts(values.0.map(AtomicU32::new))
    }

    pub(crate) fn get(&self, timeout: Timeout) -> u32 {
        self.0[timeout as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn of_class(&self, class: u8) -> u32 {
        self.0.get(usize::from(class)).map_or(0, |t| t.load(Ordering::Relaxed))
    }

    pub(crate) fn store(&self, values: &Timeouts) {
        for (shared, value) in self.0.iter().zip(values.0) {
            shared.store(value, Ordering::Relaxed);
        }
    }
}

/// A timeout as it is when there are `states`: shorter between `start` and `end`, nothing at `end` and beyond.
pub(crate) fn adapted(seconds: u32, states: u32, start: u32, end: u32) -> u32 {
    if end == 0 || states <= start || start >= end {
        return seconds;
    }
    if states >= end {
        return 0;
    }
    (u64::from(seconds) * u64::from(end - states) / u64::from(end - start)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_shrink_in_proportion_between_start_and_end() {
        assert_eq!(adapted(100, 60, 60, 120), 100);
        assert_eq!(adapted(100, 90, 60, 120), 50);
        assert_eq!(adapted(100, 119, 60, 120), 1);
        assert_eq!(adapted(100, 120, 60, 120), 0);
        assert_eq!(adapted(100, 5000, 0, 0), 100, "no end is no adaption");
        assert_eq!(adapted(86400, 3_000_000_000, 2_000_000_000, 4_000_000_000), 43200);
    }

    /// Those of TCP are what `set optimization` is about; `normal`, `high-latency`, `aggressive`, `conservative`.
    const PROFILES: [(Timeout, [u32; 4]); 7] = [
        (Timeout::TcpFirst, [2 * 60, 3 * 60, 30, 60 * 60]),
        (Timeout::TcpOpening, [30, 35, 5, 15 * 60]),
        (Timeout::TcpEstablished, [24 * 3600, 24 * 3600, 5 * 3600, 5 * 24 * 3600]),
        (Timeout::TcpClosing, [15 * 60, 15 * 60 + 5, 60, 60 * 60]),
        (Timeout::TcpFinwait, [45, 50, 30, 10 * 60]),
        (Timeout::TcpClosed, [90, 95, 30, 3 * 60]),
        (Timeout::TcpTsdiff, [30, 60, 10, 60]),
    ];

    /// Others are the same in each.
    const OTHERS: [(&str, u32); 18] = [
        ("udp.first", 60),
        ("udp.single", 30),
        ("udp.multiple", 60),
        ("icmp.first", 20),
        ("icmp.error", 10),
        ("other.first", 60),
        ("other.single", 30),
        ("other.multiple", 60),
        ("sctp.first", 120),
        ("sctp.opening", 30),
        ("sctp.established", 24 * 3600),
        ("sctp.closing", 15 * 60),
        ("sctp.closed", 90),
        ("frag", 30),
        ("interval", 10),
        ("src.track", 0),
        ("adaptive.start", 0),
        ("adaptive.end", 0),
    ];

    #[test]
    fn every_profile_has_the_columns_of_pf() {
        let profiles = ["normal", "high-latency", "aggressive", "conservative"]
            .map(|word| Optimization::of(word).unwrap());
        for (timeout, columns) in PROFILES {
            assert_eq!(profiles.map(|o| Timeouts::new(o).get(timeout)), columns, "{timeout:?}");
        }
        for (keyword, seconds) in OTHERS {
            let timeout = Timeout::of(keyword).unwrap();
            assert_eq!(profiles.map(|o| Timeouts::new(o).get(timeout)), [seconds; 4], "{keyword}");
        }
        assert_eq!(PROFILES.len() + OTHERS.len(), Timeout::COUNT, "each is in one of the two");
        assert_eq!(Optimization::of("satellite"), Optimization::of("high-latency"));
        assert_eq!(Optimization::of("default"), Some(Optimization::Normal));
    }
}
