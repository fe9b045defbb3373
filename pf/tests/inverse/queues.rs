//! `altq` and `queue`.

use std::fmt::Write;

use super::author::Author;

impl Author {
    pub fn altqs(&mut self, out: &mut String) {
        if self.chance.is(3) {
            self.queues = true;
            let (altq, first, second) = match self.chance.below(4) {
                0 => self.priq(),
                1 => self.cbq(),
                2 => self.hfsc(),
                _ => self.fairq(),
            };
            let link = self.some(&[" qlimit 60", " tbrsize 3000", " overhead 18 mpu 64", " atm"]);
            let rate = self.bandwidth();
            let _ = writeln!(out, "altq on wan0 {altq} bandwidth {rate}{link} queue {{ qa, qb }}");
            let _ = writeln!(out, "queue qa {first}\nqueue qb {second}");
        }
        if self.chance.is(6) {
            out.push_str(self.chance.one_of(&[
                "altq on lan0 codelq bandwidth 20Mb\n",
                "altq on lan0 codelq(target 5 interval 100) bandwidth 1.5Mb\n",
                "altq on lan0 codelq(target 7) bandwidth 50%\n",
            ]));
        }
    }

    fn bandwidth(&mut self) -> String {
        let n = self.number();
        match self.chance.below(5) {
            0 => format!("{n}Kb"),
            1 => format!("{n}Mb"),
            2 => format!("{}Gb", 1 + n % 40),
            3 => format!("{n}.5Mb"),
            _ => format!("{}", n * 1000),
        }
    }

    /// Of a queue: of its parent's, or by itself.
    fn share(&mut self) -> String {
        if self.chance.is(2) { format!("{}%", 1 + self.chance.below(50)) } else { self.bandwidth() }
    }

    fn drops(&mut self) -> &'static str {
        self.some(&[
            " red",
            " ecn",
            " rio",
            " codel",
            " fq_codel",
            " cake",
            " blue",
            " red ecn",
            " codel ecn",
        ])
    }

    fn priq(&mut self) -> (&'static str, String, String) {
        let (one, two) = (self.drops(), self.drops());
        let first = format!("priority {} priq(default{one})", 2 + self.chance.below(13));
        let second = if two.is_empty() { "qlimit 9".to_owned() } else { format!("priq({})", two.trim()) };
        ("priq", first, second)
    }

    fn cbq(&mut self) -> (&'static str, String, String) {
        let (one, two) = (self.drops(), self.some(&[" borrow", " flowvalve", " efficient", " cleardscp"]));
        let first = format!("bandwidth {} cbq(default{one}{two})", self.share());
        let second = format!(
            "bandwidth {} priority {} {}",
            self.share(),
            self.chance.below(8),
            self.some(&["cbq(borrow)", "qlimit 70"])
        );
        ("cbq", first, second)
    }

    fn hfsc(&mut self) -> (&'static str, String, String) {
        let drops = self.drops();
        let mut curves = String::new();
        for name in ["realtime", "linkshare", "upperlimit"] {
            if self.chance.is(2) {
                let curve = self.curve();
                let _ = write!(curves, " {name} {curve}");
            }
        }
        let first = format!("bandwidth {} hfsc(default{drops}{curves})", self.share());
        let second = format!("bandwidth {} hfsc(linkshare {})", self.share(), self.curve());
        ("hfsc", first, second)
    }

    fn curve(&mut self) -> String {
        if self.chance.is(2) {
            return self.share();
        }
        format!("({} {} {})", self.share(), 1 + self.chance.below(100), self.share())
    }

    fn fairq(&mut self) -> (&'static str, String, String) {
        let (drops, buckets) = (self.drops(), self.some(&[" buckets 256", " hogs 1Mb", " linkshare 9Mb"]));
        let first = format!("bandwidth {} priority 3 fairq(default{drops}{buckets})", self.share());
        ("fairq", first, format!("bandwidth {}", self.share()))
    }
}
