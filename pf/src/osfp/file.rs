//! The language of pf.os: one signature a line, `#` begins a comment.
//!
//! ```text
//!   window:ttl:df:size:options:class:version:subtype:details
//!   S4:64:1:60:M*,S,T,N,W7:Linux:2.6::Linux 2.6
//!
//!   window   *, n, %n (a multiple), Sn (so many segments), Tn (so many packets of the path's MTU)
//!   size     *, n, %n: octets of the whole packet
//!   options  in their order, `.` for none: N, S (SACK permitted), T, T0 (timestamp, of 0), Wn and Mn, where n may be * or %n
//!   class    behind @ if the match is approximate, behind * if nothing else of the packet says anything
//! ```
//!
//! A version or a subtype from `2` to `5`, or from `2.5` to `2.7`, stands for all in between, and for itself.

use super::{
    Fingerprints, System,
    signature::{Kind, Layout, Number, Signature, Window},
};

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Its number, from 1.
    pub line: u32,
    /// Where in it, in characters from 1.
    pub column: u32,
    /// What.
    pub message: String,
}

/// Largest packet that a signature may speak of.
const MAX_SIZE: u16 = 8192;

pub(super) fn parse(text: &str) -> (Fingerprints, Vec<Wrong>) {
    let (mut all, mut wrong) = (Fingerprints::default(), Vec::new());
    for (n, line) in text.lines().enumerate() {
        let mut fields = Fields { line, at: 0, field: 0 };
        if fields.is_empty() {
            continue;
        }
        let added = fields.signature().and_then(|signature| fields.systems(signature, &mut all));
        if let Err(message) = added {
            let column = line.get(..fields.field).map_or(0, |before| before.chars().count()) as u32 + 1;
            wrong.push(Wrong { line: n as u32 + 1, column, message });
        }
    }
    (all, wrong)
}

/// The fields of a line, one after the other.
struct Fields<'a> {
    line: &'a str,
    /// Where the next begins.
    at: usize,
    /// Where the last began.
    field: usize,
}

impl<'a> Fields<'a> {
    fn content(&self) -> &'a str {
        self.line.split('#').next().unwrap_or("").trim_end()
    }

    fn is_empty(&self) -> bool {
        self.content().is_empty()
    }

    /// The next field, of at least so many characters.
    fn next(&mut self, what: &str, least: usize) -> Result<&'a str, String> {
        let rest = self.content().get(self.at..);
        let Some(rest) = rest else {
            self.field = self.content().len();
            return Err(format!("the {what} is missing"));
        };
        let field = rest.split(':').next().unwrap_or("");
        self.field = self.at + (field.len() - field.trim_start().len());
        self.at += field.len() + 1;
        match field.trim() {
            "" if least > 0 => Err(format!("the {what} is empty")),
            field if field.len() < least => Err(format!("the {what} is too short")),
            field => Ok(field),
        }
    }

    fn signature(&mut self) -> Result<Signature, String> {
        let window = window(self.next("window size", 1)?)?;
        let ttl = digits(self.next("time to live", 1)?, "time to live", u8::MAX.into())? as u8;
        let df = match self.next("don't-fragment bit", 1)? {
            "0" => false,
            "1" => true,
            other => return Err(format!("the don't-fragment bit is 0 or 1, not `{other}`")),
        };
        let size = number(self.next("packet size", 1)?, "packet size", MAX_SIZE)?;
        let mut signature = Signature {
            window,
            ttl,
            df,
            size,
            layout: Layout::default(),
            mss: Number::Any,
            scale: Number::Any,
            zero_stamp: false,
        };
        match self.next("list of TCP options", 1)? {
            "." => {}
            list => {
                list.split([',', ' '])
                    .filter(|o| !o.is_empty())
                    .try_for_each(|o| option(o, &mut signature))?;
            }
        }
        Ok(signature)
    }

    fn systems(&mut self, signature: Signature, all: &mut Fingerprints) -> Result<(), String> {
        let class = self.next("class of the system", 1)?;
        let class = class.strip_prefix(['@', '*']).unwrap_or(class);
        let (named, version) = (self.field, self.next("version of the system", 0)?);
        let subtype = self.next("subtype of the system", 0)?;
        self.next("description", 2)?;
        if self.at <= self.content().len() {
            self.field = self.at;
            return Err("there is a field too many".to_owned());
        }
        if class.is_empty() || class.eq_ignore_ascii_case("nomatch") {
            self.field = named;
            return Err(format!("`{class}` cannot be the class of a system"));
        }
        let mut is_new = false;
        for version in range(version) {
            for subtype in range(subtype) {
                let system = System { class: class.to_owned(), version: version.clone(), subtype };
                is_new |= all.add(signature, system);
            }
        }
        self.field = named;
        if is_new { Ok(()) } else { Err("the signature of this system is given twice".to_owned()) }
    }
}

fn window(field: &str) -> Result<Window, String> {
    let times = |rest: &str| digits(rest, "window size", u16::MAX);
    match (field.strip_prefix('S'), field.strip_prefix('T')) {
        (Some(rest), _) => times(rest).map(Window::Segments),
        (_, Some(rest)) => times(rest).map(Window::Mtus),
        _ => number(field, "window size", u16::MAX).map(Window::Number),
    }
}

fn number(field: &str, what: &str, most: u16) -> Result<Number, String> {
    match field.strip_prefix('%') {
        _ if field == "*" => Ok(Number::Any),
        Some(rest) => digits(rest, what, most).map(Number::Multiple),
        None => digits(field, what, most).map(Number::Is),
    }
}

fn digits(field: &str, what: &str, most: u16) -> Result<u16, String> {
    if field.is_empty() || field.bytes().any(|b| !b.is_ascii_digit()) {
        return Err(format!("the {what} is `{field}`, which is no number"));
    }
    let value = field.parse().ok().filter(|n| *n <= most);
    value.ok_or_else(|| format!("the {what} is `{field}`, more than {most}"))
}

/// Adds an option to a signature.
fn option(word: &str, signature: &mut Signature) -> Result<(), String> {
    let letter = word.get(..1).unwrap_or("").to_ascii_uppercase();
    let rest = word.get(1..).unwrap_or("");
    let kind = match (letter.as_str(), rest) {
        ("N", "") => Kind::Nop,
        ("S", "") => Kind::Sack,
        ("T", "") => Kind::Timestamps,
        ("T", "0") => {
            signature.zero_stamp = true;
            Kind::Timestamps
        }
        ("M", value) => {
            signature.mss = number(value, "segment size", u16::MAX)?;
            Kind::Mss
        }
        ("W", value) => {
            signature.scale = number(value, "window scale", u8::MAX.into())?;
            Kind::Scale
        }
        _ => return Err(format!("there is no TCP option `{word}`: it is N, S, T, T0, Mn or Wn")),
    };
    signature.layout.push(kind).ok_or_else(|| "there are too many TCP options".to_owned())
}

/// A name, and all that it stands for if it is a range.
fn range(name: &str) -> Vec<String> {
    let mut all = between(name).unwrap_or_default();
    all.push(name.to_owned());
    all
}

/// What is between `4.7` and `4.11`, or 2 and 5, both included.
fn between(name: &str) -> Option<Vec<String>> {
    let major = |text: &str| text.as_bytes().get(1) == Some(&b'.') && text.as_bytes()[0].is_ascii_digit();
    let (from, to) = name.split_once('-')?;
    let (prefix, from, to) =
        if major(from) { (&from[..2], &from[2..], to.strip_prefix(&from[..2])?) } else { ("", from, to) };
    let small = |text: &str, most: usize| {
        let is = (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        is.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (from, to) = (small(from, 2)?, small(to, 3)?);
    Some((from..=to).map(|n| format!("{prefix}{n}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_versions_is_all_of_them_and_itself() {
        assert_eq!(range("4.7-4.9"), ["4.7", "4.8", "4.9", "4.7-4.9"]);
        assert_eq!(range("2-4"), ["2", "3", "4", "2-4"]);
        assert_eq!(range("4.9-4.11"), ["4.9", "4.10", "4.11", "4.9-4.11"]);
        for name in ["", "2.4", ".18-21", "4.7-5.1", "2000-2003", "B.11-B.12", "a-b", "4.-4.2", "1-", "7.3-7"]
        {
            assert_eq!(range(name), [name], "{name}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said_with_its_place_and_the_others_are_read() {
        let text = "# a comment\n\
            \n\
            S4:64:1:60:M*,S,T,N,W7:\t\tLinux:2.6::fine # indeed\n\
            S4:64:1:60:M*,S,T,N,W7:Linux:2.6::again\n\
            66000:64:1:60:.:A:1::of A\n\
            512:256:1:60:.:A:1::of A\n\
            512:64:2:60:.:A:1::of A\n\
            512:64:1:S60:.:A:1::of A\n\
            512:64:1:60:M*,X:A:1::of A\n\
            512:64:1:60:M:A:1::of A\n\
            512:64:1:60:.::1::of A\n\
            512:64:1:60:.:A:1\n\
            512:64:1:60:.:A:1::x\n\
            512:64:1:60:.:A:1::of A:more\n\
            :64:1:60:.:A:1::of A\n\
            S:64:1:60:.:A:1::of A\n\
            512:64:1:60:.:nomatch:1::of A\n\
            %512:64:0:*:n , t0:@A:1::of A\n";
        let (all, wrong) = Fingerprints::parse(text);
        let said: Vec<String> =
            wrong.iter().map(|w| format!("{}:{}: {}", w.line, w.column, w.message)).collect();
        let wanted = [
            "4:24: the signature of this system is given twice",
            "5:1: the window size is `66000`, more than 65535",
            "6:5: the time to live is `256`, more than 255",
            "7:8: the don't-fragment bit is 0 or 1, not `2`",
            "8:10: the packet size is `S60`, which is no number",
            "9:13: there is no TCP option `X`: it is N, S, T, T0, Mn or Wn",
            "10:13: the segment size is ``, which is no number",
            "11:15: the class of the system is empty",
            "12:18: the subtype of the system is missing",
            "13:20: the description is too short",
            "14:25: there is a field too many",
            "15:1: the window size is empty",
            "16:1: the window size is ``, which is no number",
            "17:15: `nomatch` cannot be the class of a system",
        ];
        assert_eq!(said, wanted);
        assert_eq!(all.all.len(), 2);
        let (signature, systems) = &all.all[1];
        assert_eq!(signature.window, Window::Number(Number::Multiple(512)));
        assert_eq!((signature.size, signature.zero_stamp), (Number::Any, true));
        assert_eq!(systems, &[System { class: "A".into(), version: "1".into(), subtype: String::new() }]);
    }
}
