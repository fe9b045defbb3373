//! Grammar of what only some packets have: TCP flags, ICMP types and codes, TOS.

use super::{
    ast::IcmpDef,
    cursor::{Cursor, parse_number},
    error::{Fault, Parsed},
};
use crate::{
    addr::Family,
    names,
    rule::{FLAG_LETTERS, TcpFlags},
};

/// A code of an ICMP type, by name or number.
pub(crate) fn code(c: &mut Cursor, family: Family, kind: u8) -> Parsed<u8> {
    let word = c.string("an ICMP code")?;
    let number = match parse_number(word.value) {
        Some(n) => u8::try_from(n).ok(),
        None => names::icmp_code(family, kind, word.value),
    };
    number.ok_or_else(|| {
        Fault::new(word.at, format!("unknown icmp code `{}`", word.value))
            .help("a number, or a name as port-unr, host-unr, net-unr, needfrag")
    })
}

/// `S/SA`, `any`
pub(crate) fn flags(c: &mut Cursor) -> Parsed<Option<TcpFlags>> {
    if c.accept("any") {
        return Ok(None);
    }
    let set = if c.is_sym("/") { 0 } else { flag_letters(c)? };
    c.expect_sym("/")?;
    let mask = flag_letters(c)?;
    Ok(Some(TcpFlags { set, mask }))
}

fn flag_letters(c: &mut Cursor) -> Parsed<u8> {
    let word = c.string("TCP flags")?;
    let mut set = 0;
    for letter in word.value.bytes() {
        let bit = FLAG_LETTERS.iter().position(|&l| l == letter).ok_or_else(|| {
            Fault::new(word.at, format!("unknown TCP flag `{}`", char::from(letter)))
                .help("the flags are F S R P A U E W")
        })?;
        set |= 1 << bit;
    }
    Ok(set)
}

pub(crate) fn icmp_types(c: &mut Cursor, family: Family) -> Parsed<Vec<IcmpDef>> {
    c.list(|c| {
        let word = c.string("an ICMP type")?;
        let kind = match parse_number(word.value) {
            Some(n) => u8::try_from(n).ok(),
            None => names::icmp_type(family, word.value),
        };
        let kind = kind.ok_or_else(|| {
            Fault::new(word.at, format!("unknown icmp-type `{}`", word.value))
                .help("a number, or a name as echoreq, unreach, timex")
        })?;
        let code = if c.accept("code") { Some(self::code(c, family, kind)?) } else { None };
        Ok(IcmpDef { at: word.at, family, kind, code })
    })
}

/// A TOS octet, by name or number.
pub(crate) fn tos(c: &mut Cursor) -> Parsed<u8> {
    let word = c.string("a TOS value")?;
    let value = match parse_number(word.value) {
        Some(n) => u8::try_from(n).ok(),
        None => names::tos(word.value),
    };
    match value {
        Some(0) | None => Err(Fault::new(word.at, format!("illegal tos value `{}`", word.value))
            .help("a number from 1 to 255, or lowdelay, throughput, reliability, or a DSCP name")),
        Some(n) => Ok(n),
    }
}
