//! Tokens of pf.conf, with their places.
//!
//! As in pfctl: a word is a run of letters, digits and punctuation other than `( ) { } < > ! = / # ,`; numbers and
//! keywords are words. `$`, `"` and `'` may stand within a word, not at its beginning. A quoted string is one token and never a keyword. A backslash before the end of a line joins it to
//! the next. `$name` is replaced by the tokens of the macro's value, all at the place of the `$`.
//!
//! The lexer gives one logical line at a time, since a macro defined on one line is used on the next. A line does not
//! end within braces, except behind the brace that begins the rules of an anchor: that one ends it.

use std::collections::HashMap;

use super::error::{Fault, Parsed, Pos};

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tok {
    Word(String),
    Quoted(String),
    Sym(&'static str),
    /// The end of a line within braces.
    Newline,
}

/// A token and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) tok: Tok,
    pub(crate) at: Pos,
}

/// A logical line.
#[derive(Debug, Default)]
pub(crate) struct Line {
    pub(crate) tokens: Vec<Token>,
    /// Just behind the last token.
    pub(crate) end: Pos,
}

impl Line {
    /// Whether it ends with the brace behind which the rules of an anchor stand.
    pub(crate) fn begins_rules(&self) -> bool {
        self.tokens.last().is_some_and(|t| t.tok == Tok::Sym("{"))
    }
}

/// The macros defined so far.
pub(crate) type Macros = HashMap<String, String>;

const MAX_STRING: usize = 8191;

/// The two-character symbols before the single ones.
const SYMBOLS: &[&str] =
    &["!=", "<=", ">=", "<>", "><", "->", "!", "<", ">", "=", "(", ")", "{", "}", "/", ",", "-"];

/// Whether a word may begin with this character.
fn begins_word(c: char) -> bool {
    in_word(c) && !"\"'$".contains(c)
}

/// Whether a word goes on with this character.
fn in_word(c: char) -> bool {
    c.is_alphanumeric() || (c.is_ascii_punctuation() && !"(){}<>!=/#,\\".contains(c))
}

/// Whether a brace behind these tokens holds the rules of an anchor, and not a list.
fn begins_rules(tokens: &[Token]) -> bool {
    let is = |token: Option<&Token>, words: &[&str]| matches!(token.map(|t| &t.tok), Some(Tok::Word(w)) if words.contains(&w.as_str()));
    let call =
        is(tokens.first(), &["anchor"]) || (is(tokens.first(), &["ether"]) && is(tokens.get(1), &["anchor"]));
    call && !is(
        tokens.last(),
        &["on", "proto", "from", "to", "port", "os", "user", "group", "icmp-type", "icmp6-type"],
    )
}

/// Reads one file.
pub(crate) struct Lexer<'a> {
    text: &'a [char],
    i: usize,
    at: Pos,
    macros: &'a Macros,
    /// Within a macro's value every token has this place.
    fixed: Option<Pos>,
}

impl<'a> Lexer<'a> {
    /// Reads `text` from `i`, which is at `at`.
    pub(crate) fn new(text: &'a [char], i: usize, at: Pos, macros: &'a Macros) -> Lexer<'a> {
        Lexer { text, i, at, macros, fixed: None }
    }

    /// Where reading stands: index and place.
    pub(crate) fn stand(&self) -> (usize, Pos) {
        (self.i, self.at)
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.i).copied()
    }

    fn place(&self) -> Pos {
        self.fixed.unwrap_or(self.at)
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.i += 1;
        if c == '\n' {
            self.at.line += 1;
            self.at.column = 1;
        } else {
            self.at.column += 1;
        }
        Some(c)
    }

    /// The next character; lines that a backslash joins are joined.
    fn joined(&mut self) -> Option<char> {
        while self.peek() == Some('\\') && self.text.get(self.i + 1) == Some(&'\n') {
            self.bump();
            self.bump();
        }
        self.peek()
    }

    /// The next logical line. The first fault ends it: what follows on that line is not read.
    pub(crate) fn line(&mut self) -> Parsed<Line> {
        let mut line = Line::default();
        let mut open: Vec<Pos> = Vec::new();
        let start = self.stand();
        loop {
            let at = self.place();
            line.end = at;
            match self.joined() {
                None => break,
                Some('\n') => {
                    self.bump();
                    if open.is_empty() {
                        return Ok(line);
                    }
                    line.tokens.push(Token { tok: Tok::Newline, at });
                }
                Some('#') => self.skip_comment(),
                Some(c) if c.is_whitespace() => {
                    self.bump();
                }
                Some('$') if self.fixed.is_none() => self.expand_macro(&mut line)?,
                Some(_) => {
                    let tok = self.token()?;
                    match tok {
                        Tok::Sym("{")
                            if open.is_empty() && begins_rules(&line.tokens) && self.rest_is_blank() =>
                        {
                            line.tokens.push(Token { tok, at });
                            self.skip_line();
                            return Ok(line);
                        }
                        Tok::Sym("{") => open.push(at),
                        Tok::Sym("}") => {
                            open.pop();
                        }
                        _ => {}
                    }
                    line.tokens.push(Token { tok, at });
                }
            }
        }
        match open.last() {
            None => Ok(line),
            Some(&brace) => {
                // Go on behind the first line of it, so that what follows is still checked.
                (self.i, self.at) = start;
                Err(Fault::new(brace, "`{` is never closed").help("a list ends with `}`"))
            }
        }
    }

    /// Gives the rest of the present line up, after a fault.
    pub(crate) fn skip_line(&mut self) {
        while let Some(c) = self.joined() {
            self.bump();
            if c == '\n' {
                break;
            }
        }
    }

    /// Whether nothing but blanks and a comment stands before the end of the line.
    fn rest_is_blank(&self) -> bool {
        let rest = self.text.get(self.i..).unwrap_or_default();
        let next = rest.iter().find(|c| !matches!(c, ' ' | '\t' | '\r'));
        matches!(next, None | Some('\n' | '#'))
    }

    fn skip_comment(&mut self) {
        while self.joined().is_some_and(|c| c != '\n') {
            self.bump();
        }
    }

    fn expand_macro(&mut self, line: &mut Line) -> Parsed<()> {
        let at = self.place();
        self.bump();
        let mut name = String::new();
        while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || *c == '_') {
            name.push(c);
            self.bump();
        }
        let Some(value) = self.macros.get(&name) else {
            return Err(Fault::new(at, format!("macro `{name}` is not defined"))
                .help(format!("define it above: {name} = \"...\"")));
        };
        let text: Vec<char> = value.chars().collect();
        let empty = Macros::new();
        let mut inner = Lexer { text: &text, i: 0, at, macros: &empty, fixed: Some(at) };
        while let Some(c) = inner.joined() {
            if c == '#' {
                break;
            }
            if c.is_whitespace() {
                inner.bump();
            } else {
                let tok = inner.token()?;
                line.tokens.push(Token { tok, at });
            }
        }
        // As if the value stood here: `$if:network` is one word.
        if value.ends_with(in_word)
            && let Some(Token { tok: Tok::Word(word), .. }) = line.tokens.last_mut()
        {
            self.rest_of_word(word);
            let word = word.clone();
            self.check_length(&word)?;
        }
        Ok(())
    }

    /// Takes the characters that a word goes on with.
    fn rest_of_word(&mut self, word: &mut String) {
        while let Some(c) = self.joined().filter(|&c| in_word(c)) {
            word.push(c);
            self.bump();
        }
    }

    fn token(&mut self) -> Parsed<Tok> {
        match self.peek() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote),
            Some(c) => self.symbol_or_word(c),
            None => Ok(Tok::Newline),
        }
    }

    fn symbol_or_word(&mut self, c: char) -> Parsed<Tok> {
        let next = self.text.get(self.i + 1).copied();
        let negative = c == '-' && next.is_some_and(|n| n.is_ascii_digit());
        if !negative && let Some(symbol) = SYMBOLS.iter().find(|s| self.starts_with(s)) {
            for _ in 0..symbol.len() {
                self.bump();
            }
            return Ok(Tok::Sym(symbol));
        }
        if !begins_word(c) {
            return Err(Fault::new(self.place(), format!("character `{c}` means nothing here")));
        }
        let mut word = String::new();
        self.rest_of_word(&mut word);
        self.check_length(&word)?;
        Ok(Tok::Word(word))
    }

    fn starts_with(&self, symbol: &str) -> bool {
        symbol.chars().enumerate().all(|(n, c)| self.text.get(self.i + n) == Some(&c))
    }

    fn quoted(&mut self, quote: char) -> Parsed<Tok> {
        let at = self.place();
        self.bump();
        let mut text = String::new();
        loop {
            match self.joined() {
                None => return Err(Fault::new(at, format!("`{quote}` is never closed"))),
                Some('\n') => {
                    self.bump();
                }
                Some('\\') if self.escapes(quote) => {
                    self.bump();
                    text.extend(self.bump());
                }
                Some(c) => {
                    self.bump();
                    if c == quote {
                        break;
                    }
                    text.push(c);
                }
            }
        }
        self.check_length(&text)?;
        Ok(Tok::Quoted(text))
    }

    /// Whether the backslash here takes the meaning from what follows.
    fn escapes(&self, quote: char) -> bool {
        self.text.get(self.i + 1).is_some_and(|&n| n == quote || n == ' ' || n == '\t')
    }

    fn check_length(&self, text: &str) -> Parsed<()> {
        if text.len() > MAX_STRING {
            return Err(Fault::new(
                self.place(),
                format!("string too long: {} characters, at most {MAX_STRING}", text.len()),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str, macros: &[(&str, &str)]) -> Vec<String> {
        let macros = macros.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let chars: Vec<char> = text.chars().collect();
        let mut lexer = Lexer::new(&chars, 0, Pos { file: 0, line: 1, column: 1 }, &macros);
        let line = lexer.line().unwrap();
        line.tokens
            .iter()
            .map(|t| match &t.tok {
                Tok::Word(w) => w.clone(),
                Tok::Quoted(q) => format!("\"{q}\""),
                Tok::Sym(s) => (*s).to_owned(),
                Tok::Newline => "\\n".to_owned(),
            })
            .collect()
    }

    #[test]
    fn words_take_punctuation_and_symbols_the_longest_form() {
        assert_eq!(
            words("from !10.0.0.0/8 port 1024:2048 to <t>", &[]).join(" "),
            "from ! 10.0.0.0 / 8 port 1024:2048 to < t >"
        );
        assert_eq!(words("port 1><2 != 3 <= 4 -> a - b", &[]).join(" "), "port 1 >< 2 != 3 <= 4 -> a - b");
        assert_eq!(
            words("lo0:network fe80::1%lo0 port-unr", &[]),
            ["lo0:network", "fe80::1%lo0", "port-unr"]
        );
    }

    #[test]
    fn lines_are_joined_and_comments_end_them() {
        assert_eq!(words("block \\\n in # all\nout", &[]), ["block", "in"]);
        assert_eq!(words("a { b # c\n d }\ne", &[]).join(" "), "a { b \\n d }");
    }

    #[test]
    fn a_macro_is_replaced_by_its_tokens_and_a_quoted_string_is_not_looked_into() {
        assert_eq!(
            words("from $net \"$net\"", &[("net", "{ ! 10.0.0.0/8, 1.2.3.4 }")]).join(" "),
            "from { ! 10.0.0.0 / 8 , 1.2.3.4 } \"$net\""
        );
        assert_eq!(
            words("from $if:network label x$nr", &[("if", "em0")]),
            ["from", "em0:network", "label", "x$nr"]
        );
        assert_eq!(words("$a/24 $a,b", &[("a", "1.2.3.4")]).join(" "), "1.2.3.4 / 24 1.2.3.4 , b");
    }

    #[test]
    fn tokens_know_their_line_and_column() {
        let chars: Vec<char> = "a\\\n  bb = 'c'".chars().collect();
        let macros = Macros::new();
        let line = Lexer::new(&chars, 0, Pos { file: 0, line: 1, column: 1 }, &macros).line().unwrap();
        let places: Vec<_> = line.tokens.iter().map(|t| (t.at.line, t.at.column)).collect();
        assert_eq!(places, [(1, 1), (2, 3), (2, 6), (2, 8)]);
    }
}
