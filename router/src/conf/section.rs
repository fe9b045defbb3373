//! A table of the file, read key by key. Keys that nobody asked for are complained of at the end, with the nearest known
//! one; so is a value of the wrong type, and reading goes on: all faults of a file are found in one run.

use super::diag::{At, Complaints, list, nearest};
use std::{fmt::Display, ops::RangeInclusive, str::FromStr};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

type Span = std::ops::Range<usize>;

/// A table being read.
pub(super) struct Section<'a, 'i> {
    /// As people call it: `[router]`.
    title: &'static str,
    span: Span,
    table: &'a DeTable<'i>,
    asked: Vec<&'static str>,
}

impl<'a, 'i> Section<'a, 'i> {
    pub(super) fn new(title: &'static str, table: &'a DeTable<'i>, span: Span) -> Self {
        Section { title, span, table, asked: Vec::new() }
    }

    /// Where the table begins.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.asked.push(key);
        self.table.iter().find(|(k, _)| k.get_ref() == key).map(|(_, v)| v)
    }

    /// Where a key stands, if it is there.
    pub(super) fn key_span(&self, key: &str) -> Option<Span> {
        self.table.iter().find(|(k, _)| k.get_ref() == key).map(|(k, _)| k.span())
    }

    /// Complains of a key that must be there and is not.
    pub(super) fn require<T>(
        &self,
        key: &str,
        value: Option<T>,
        example: &str,
        bad: &mut Complaints,
    ) -> Option<T> {
        if value.is_none() && self.key_span(key).is_none() {
            bad.error(
                &self.span,
                format!("{} has no {key}", self.title),
                format!("for example {key} = {example}"),
            );
        }
        value
    }

    /// A string.
    pub(super) fn string(&mut self, key: &'static str, bad: &mut Complaints) -> Option<At<String>> {
        let value = self.value(key)?;
        text(key, value, bad)
    }

    /// A string that means something.
    pub(super) fn parse<T: FromStr>(
        &mut self,
        key: &'static str,
        hint: impl Display,
        bad: &mut Complaints,
    ) -> Option<At<T>> {
        let text = self.string(key, bad)?;
        parsed(key, &text, &hint, bad)
    }

    /// One string or a list of them, each of which means something.
    pub(super) fn parse_list<T: FromStr>(
        &mut self,
        key: &'static str,
        hint: impl Display,
        bad: &mut Complaints,
    ) -> Option<Vec<At<T>>> {
        let value = self.value(key)?;
        let each = |v: &Spanned<DeValue<'i>>, bad: &mut Complaints| {
            text(key, v, bad).and_then(|t| parsed(key, &t, &hint, bad))
        };
        Some(match value.get_ref().as_array() {
            Some(array) => array.iter().filter_map(|v| each(v, bad)).collect(),
            None => each(value, bad).into_iter().collect(),
        })
    }

    /// Whether it is so.
    pub(super) fn boolean(&mut self, key: &'static str, bad: &mut Complaints) -> Option<At<bool>> {
        let value = self.value(key)?;
        let is = value.get_ref().as_bool();
        if is.is_none() {
            wrong_type(key, "true or false", value, bad);
        }
        is.map(|b| At { value: b, span: value.span() })
    }

    /// A whole number in a range.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
        bad: &mut Complaints,
    ) -> Option<At<u64>> {
        let value = self.value(key)?;
        number(key, value, &range, bad)
    }

    /// A list of whole numbers in a range.
    pub(super) fn numbers(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
        bad: &mut Complaints,
    ) -> Option<At<Vec<At<u64>>>> {
        let value = self.value(key)?;
        let Some(array) = value.get_ref().as_array() else {
            wrong_type(key, "a list of numbers", value, bad);
            return None;
        };
        let all = array.iter().filter_map(|v| number(key, v, &range, bad)).collect();
        Some(At { value: all, span: value.span() })
    }

    /// The word `auto`, which is no number, or a number.
    pub(super) fn number_or_auto(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
        bad: &mut Complaints,
    ) -> Option<At<Option<u64>>> {
        let value = self.value(key)?;
        match value.get_ref().as_str() {
            Some("auto") => Some(At { value: None, span: value.span() }),
            Some(other) => {
                bad.error(&value.span(), format!("{key} cannot be \"{other}\""), "\"auto\" or a number");
                None
            }
            None => number(key, value, &range, bad).map(|at| at.map(Some)),
        }
    }

    /// A table below this one.
    pub(super) fn table(
        &mut self,
        key: &'static str,
        title: &'static str,
        bad: &mut Complaints,
    ) -> Option<Section<'a, 'i>> {
        let value = self.value(key)?;
        let table = value.get_ref().as_table();
        if table.is_none() {
            wrong_type(key, &format!("a table: {title}"), value, bad);
        }
        Some(Section::new(title, table?, value.span()))
    }

    /// The tables of a list below this one.
    pub(super) fn tables(
        &mut self,
        key: &'static str,
        title: &'static str,
        bad: &mut Complaints,
    ) -> Vec<Section<'a, 'i>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            wrong_type(key, &format!("a list of tables: {title}"), value, bad);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for element in array {
            match element.get_ref().as_table() {
                Some(table) => sections.push(Section::new(title, table, element.span())),
                None => wrong_type(key, &format!("a list of tables: {title}"), element, bad),
            }
        }
        sections
    }

    /// Complains of keys that nobody asked for.
    pub(super) fn finish(self, bad: &mut Complaints) {
        for (key, _) in self.table.iter().filter(|(k, _)| !self.asked.contains(&&**k.get_ref())) {
            let hint = match nearest(key.get_ref(), &self.asked) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("known are {}", list(&self.asked)),
            };
            bad.error(&key.span(), format!("{} has no key {}", self.title, key.get_ref()), hint);
        }
    }
}

fn text(key: &str, value: &Spanned<DeValue<'_>>, bad: &mut Complaints) -> Option<At<String>> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        wrong_type(key, "a string", value, bad);
    }
    text.map(|t| At { value: t.to_owned(), span: value.span() })
}

fn parsed<T: FromStr>(
    key: &str,
    text: &At<String>,
    hint: &impl Display,
    bad: &mut Complaints,
) -> Option<At<T>> {
    let value = text.value.parse().ok();
    if value.is_none() {
        bad.error(&text.span, format!("{key} cannot be \"{}\"", text.value), hint.to_string());
    }
    value.map(|value| At { value, span: text.span.clone() })
}

fn number(
    key: &str,
    value: &Spanned<DeValue<'_>>,
    range: &RangeInclusive<u64>,
    bad: &mut Complaints,
) -> Option<At<u64>> {
    let Some(integer) = value.get_ref().as_integer() else {
        wrong_type(key, "a whole number", value, bad);
        return None;
    };
    let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|n| range.contains(n));
    if number.is_none() {
        let limits = format!("from {} to {}", range.start(), range.end());
        bad.error(&value.span(), format!("{key} cannot be {integer}"), limits);
    }
    number.map(|n| At { value: n, span: value.span() })
}

fn wrong_type(key: &str, wanted: &str, value: &Spanned<DeValue<'_>>, bad: &mut Complaints) {
    let is = value.get_ref().type_str();
    let article = if is.starts_with(['a', 'i']) { "an" } else { "a" };
    bad.error(&value.span(), format!("{key} cannot be {article} {is}"), format!("it is {wanted}"));
}
