//! Words of an ipsec.conf, with their places.
//!
//! setkey's own lexer knows many kinds of token; here a word is whatever stands between white space, `;` and `#`, and
//! those who read it know what it should be. A quoted string is one word, without its quotes.

use std::str::Chars;

/// A place in the text; both count from 1, a column is a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct Place {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

impl Place {
    /// The place `chars` characters further on in the same line.
    pub(super) fn after(self, chars: usize) -> Place {
        Place { column: self.column + chars as u32, ..self }
    }
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Word,
    Quoted,
    /// A string whose second quote is missing; it ends with its line.
    Unclosed,
    Semicolon,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind,
    pub(super) text: &'t str,
    pub(super) place: Place,
    /// Whether it is the first of its line.
    pub(super) leads: bool,
}

struct Lexer<'t> {
    rest: Chars<'t>,
    place: Place,
    leads: bool,
}

impl<'t> Lexer<'t> {
    fn bump(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        if c == '\n' {
            self.place = Place { line: self.place.line + 1, column: 1 };
            self.leads = true;
        } else {
            self.place.column += 1;
        }
        Some(c)
    }

    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn skip_blank(&mut self) {
        while let Some(c) = self.peek() {
            if c == '#' {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.bump();
                }
            } else if c.is_whitespace() {
                self.bump();
            } else {
                return;
            }
        }
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'t str {
        let from = self.rest.as_str();
        while self.peek().is_some_and(&keep) {
            self.bump();
        }
        &from[..from.len() - self.rest.as_str().len()]
    }

    fn token(&mut self) -> Option<Token<'t>> {
        self.skip_blank();
        let (place, leads) = (self.place, std::mem::take(&mut self.leads));
        let token = |kind, text| Some(Token { kind, text, place, leads });
        match self.peek()? {
            ';' => {
                self.bump();
                token(Kind::Semicolon, ";")
            }
            '"' => {
                self.bump();
                let text = self.take_while(|c| c != '"' && c != '\n');
                let closed = self.peek() == Some('"');
                if closed {
                    self.bump();
                }
                token(if closed { Kind::Quoted } else { Kind::Unclosed }, text)
            }
            _ => {
                let text = self.take_while(|c| !c.is_whitespace() && !matches!(c, ';' | '#' | '"'));
                token(Kind::Word, text)
            }
        }
    }
}

/// All tokens of a text.
pub(super) fn lex(text: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer { rest: text.chars(), place: Place { line: 1, column: 1 }, leads: true };
    std::iter::from_fn(|| lexer.token()).collect()
}
