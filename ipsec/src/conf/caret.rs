//! Errors for a terminal: each with its line and a caret below the place, as pfctl's are. Keys in the line are blotted out.

use super::{
    ConfError,
    lex::{Kind, Token, lex},
};
use std::fmt::Write;

/// The errors of a text, one after the other, each with its line of the text.
pub fn with_carets(errors: &[ConfError], text: &str) -> String {
    let shown = blotted(text);
    let mut out = String::new();
    for error in errors {
        let before = if out.is_empty() { "" } else { "\n" };
        // Writing to a string does not fail.
        let _ = write!(out, "{before}{error}");
        if let Some(line) = shown.lines().nth(error.place.line.saturating_sub(1) as usize) {
            let left = line.chars().take(error.place.column.saturating_sub(1) as usize);
            let pad: String = left.map(|c| if c == '\t' { c } else { ' ' }).collect();
            let _ = write!(out, "\n  {}\n  {pad}^", line.trim_end());
        }
    }
    out
}

/// The text with stars in place of whatever may be a key, and blanks in place of comments, for keys are commented out too.
/// Everything keeps its place.
fn blotted(text: &str) -> String {
    let mut shown: Vec<char> = text.chars().map(|c| if c.is_whitespace() { c } else { ' ' }).collect();
    let ends = shown.iter().enumerate().filter(|(_, c)| **c == '\n').map(|(at, _)| at + 1);
    let starts: Vec<usize> = std::iter::once(0).chain(ends).collect();
    // How many words ago an option stood behind which there is an algorithm, and then a key.
    let mut since = usize::MAX;
    for token in lex(text) {
        since = since.saturating_add(1);
        if token.kind == Kind::Word && matches!(token.text, "-E" | "-A" | "-C") {
            since = 0;
        }
        let is_secret = token.kind != Kind::Semicolon && (since == 2 || may_be_key(&token));
        let quote = if matches!(token.kind, Kind::Quoted | Kind::Unclosed) { "\"" } else { "" };
        let close = if token.kind == Kind::Quoted { "\"" } else { "" };
        let inside = token.text.chars().map(|c| if is_secret { '*' } else { c });
        let written = quote.chars().chain(inside).chain(close.chars());
        let start = starts.get(token.place.line as usize - 1).copied().unwrap_or(shown.len());
        let places = shown.iter_mut().skip(start + token.place.column as usize - 1);
        places.zip(written).for_each(|(place, c)| *place = c);
    }
    scrubbed(&shown.into_iter().collect::<String>())
}

/// The text with stars in place of digits that are too many for a number: a key that nobody expected where it stands.
pub(super) fn scrubbed(text: &str) -> String {
    const NUMBER: usize = 20;
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        let (before, from) = rest.split_at(at);
        let (run, behind) = from.split_at(from.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(from.len()));
        let is_number = run.len() <= NUMBER && run.bytes().all(|b| b.is_ascii_digit());
        out.push_str(before);
        if run.len() < 16 || is_number {
            out.push_str(run);
        } else {
            out.extend(run.chars().map(|_| '*'));
        }
        rest = behind;
    }
    out + rest
}

/// Whether a token looks like a key wherever it stands: a string, or many hexadecimal digits.
fn may_be_key(token: &Token<'_>) -> bool {
    let digits =
        token.text.strip_prefix("0x").or_else(|| token.text.strip_prefix("0X")).unwrap_or(token.text);
    let is_hex = digits.chars().filter(char::is_ascii_hexdigit).count() * 4 > digits.len() * 3;
    token.kind != Kind::Word || (digits.len() > 10 && is_hex && !digits.contains(['.', ':']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::{Conf, ValidConf};

    #[test]
    fn an_error_shows_its_line_and_a_caret_and_no_key() {
        let key = "0123456789abcdef0123456789abcdef01234567";
        let text = format!(
            "flush;\nadd 10.0.0.1 10.0.0.2 esp 0x100\n\t-r 70000 -E aes-gcm-16 0x{key} ;\nadd 1 2 esp 3 -E {key} \"{key}\";"
        );
        let errors = Conf::parse("stdin", &text).unwrap_err();
        let shown = with_carets(&errors, &text);
        assert!(!shown.contains(key) && shown.contains("stdin:4:5: \"1\" is not an address"), "{shown}");
        assert!(shown.contains("\n  add 1 2 esp 3 -E ***"), "{shown}");
        let text = text.lines().take(3).collect::<Vec<_>>().join("\n");
        let errors = Conf::parse("stdin", &text).unwrap().check(&ValidConf::default()).unwrap_err();
        let shown = with_carets(&errors, &text);
        let stars = "*".repeat(42);
        assert!(shown.ends_with(&format!("\n  \t-r 70000 -E aes-gcm-16 {stars} ;\n  \t^")), "{shown}");
    }

    #[test]
    fn addresses_and_words_are_not_taken_for_keys() {
        let text = "spdadd 2001:db8:0:1::/64 fdde:ad00:beef:cafe:dead:beef:cafe:0001 any -P out discard;";
        assert_eq!(blotted(text), text);
        let text = "flush ; # add 1 2 esp 3 -E aes-gcm-16 0x0123456789";
        assert_eq!(blotted(text).trim_end(), "flush ;");
        assert_eq!(
            scrubbed("18446744073709551616 of 8a1fd2c3b4a596877"),
            "18446744073709551616 of *****************"
        );
        assert_eq!(blotted("add \"0x01\" \"ab"), "add \"****\" \"**");
    }
}
