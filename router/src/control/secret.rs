//! A text with keys in it on its way through the control socket: it is in no message and no `Debug` output, and wherever
//! it was in memory is wiped. So it is not decoded by serde_json, which keeps decoded strings in a buffer of its own.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::value::RawValue;
use std::fmt;
use zeroize::Zeroizing;

/// A text that is wiped when it is dropped.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<Zeroizing<String>> for SecretText {
    fn from(text: Zeroizing<String>) -> SecretText {
        SecretText(text)
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SecretText, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        unescape(raw.get()).map(SecretText).ok_or_else(|| D::Error::custom("not a string"))
    }
}

/// What a JSON string says (RFC 8259, 7).
fn unescape(raw: &str) -> Option<Zeroizing<String>> {
    let mut rest = raw.strip_prefix('"')?.strip_suffix('"')?.chars();
    // Never longer than its JSON, so it does not move.
    let mut text = Zeroizing::new(String::with_capacity(raw.len()));
    while let Some(c) = rest.next() {
        text.push(match c {
            '\\' => match rest.next()? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'u' => unicode(&mut rest)?,
                plain => plain,
            },
            c => c,
        });
    }
    Some(text)
}

/// Four hexadecimal digits, or a pair of surrogates.
fn unicode(rest: &mut std::str::Chars<'_>) -> Option<char> {
    let mut four = || (0..4).try_fold(0, |n, _| Some(n << 4 | rest.next()?.to_digit(16)?));
    let high = four()?;
    if !(0xd800..0xdc00).contains(&high) {
        return char::from_u32(high);
    }
    (rest.next()? == '\\' && rest.next()? == 'u').then_some(())?;
    let mut four = || (0..4).try_fold(0, |n, _| Some(n << 4 | rest.next()?.to_digit(16)?));
    let low = four()?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    char::from_u32(0x1_0000 + ((high - 0xd800) << 10 | low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_said_is_what_serde_json_would_have_understood(text in any::<String>(), more in "[\"\\\\\n\t\u{1}/é😀]*") {
            let text = text + &more;
            let secret = SecretText::from(Zeroizing::new(text.clone()));
            let json = serde_json::to_string(&secret).unwrap();
            prop_assert_eq!(serde_json::from_str::<SecretText>(&json).unwrap(), secret);
            let ascii = text.encode_utf16().fold(String::new(), |all, unit| all + &format!("\\u{unit:04x}"));
            let said: SecretText = serde_json::from_str(&format!("\"{ascii}\"")).unwrap();
            prop_assert_eq!(said.expose(), text);
        }
    }

    #[test]
    fn what_is_no_string_is_refused_and_debug_says_nothing() {
        for json in
            ["7", "null", "[\"x\"]", r#""\ud83d""#, r#""\ud83dx""#, r#""\ude00""#, r#""\ud83d\u0041""#]
        {
            assert!(serde_json::from_str::<SecretText>(json).is_err(), "{json}");
        }
        let secret = SecretText::from(Zeroizing::new("0x0123".to_owned()));
        assert_eq!(format!("{secret:?}"), "SecretText(..)");
    }
}
