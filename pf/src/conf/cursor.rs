//! Walking over the tokens of a line: the words every grammar rule is written in.

use super::{
    ast::At,
    error::{Fault, Parsed, Pos},
    lex::{Line, Tok},
};

/// A place in a line of tokens.
pub(crate) struct Cursor<'a> {
    line: &'a Line,
    i: usize,
    /// Keywords met that may lack an engine, for [`super::unsupported`].
    pub(crate) uses: Vec<Use>,
}

/// A keyword and where it stands.
pub(crate) type Use = At<&'static str>;

impl<'a> Cursor<'a> {
    pub(crate) fn new(line: &'a Line) -> Cursor<'a> {
        Cursor { line, i: 0, uses: Vec::new() }
    }

    /// The next token.
    pub(crate) fn peek(&self) -> Option<&'a Tok> {
        self.line.tokens.get(self.i).map(|t| &t.tok)
    }

    fn peek_after(&self, n: usize) -> Option<&'a Tok> {
        self.line.tokens.get(self.i + n).map(|t| &t.tok)
    }

    /// Where the next token is, or the line ends.
    pub(crate) fn at(&self) -> Pos {
        self.line.tokens.get(self.i).map_or(self.line.end, |t| t.at)
    }

    /// Notes that a keyword is used.
    pub(crate) fn note(&mut self, at: Pos, keyword: &'static str) {
        self.uses.push(At::new(at, keyword));
    }

    /// Takes this word if it comes next, and notes that it is used.
    pub(crate) fn accept_noted(&mut self, word: &'static str) -> bool {
        let at = self.at();
        let is = self.accept(word);
        if is {
            self.note(at, word);
        }
        is
    }

    /// The next token if it is an unquoted word.
    pub(crate) fn peek_word(&self) -> Option<&'a str> {
        match self.peek() {
            Some(Tok::Word(w)) => Some(w),
            _ => None,
        }
    }

    pub(crate) fn skip(&mut self) {
        self.i += 1;
    }

    /// Whether the next token is this unquoted word.
    pub(crate) fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Tok::Word(w)) if w == word)
    }

    /// Whether the next token is this symbol.
    pub(crate) fn is_sym(&self, symbol: &str) -> bool {
        matches!(self.peek(), Some(Tok::Sym(s)) if *s == symbol)
    }

    /// Whether the token after the next is this symbol.
    pub(crate) fn is_sym_after(&self, symbol: &str) -> bool {
        matches!(self.peek_after(1), Some(Tok::Sym(s)) if *s == symbol)
    }

    /// Takes this word if it comes next.
    pub(crate) fn accept(&mut self, word: &str) -> bool {
        let is = self.is_word(word);
        self.i += usize::from(is);
        is
    }

    /// Takes this symbol if it comes next.
    pub(crate) fn accept_sym(&mut self, symbol: &str) -> bool {
        let is = self.is_sym(symbol);
        self.i += usize::from(is);
        is
    }

    /// Takes this symbol; it must come next.
    pub(crate) fn expect_sym(&mut self, symbol: &str) -> Parsed<()> {
        if self.accept_sym(symbol) { Ok(()) } else { Err(self.expected(&format!("`{symbol}`"))) }
    }

    /// Takes this word; it must come next.
    pub(crate) fn expect(&mut self, word: &str) -> Parsed<()> {
        if self.accept(word) { Ok(()) } else { Err(self.expected(&format!("`{word}`"))) }
    }

    /// The next token is not what it should be.
    pub(crate) fn expected(&self, what: &str) -> Fault {
        let found = match self.peek() {
            None | Some(Tok::Newline) => "the end of the line".to_owned(),
            Some(Tok::Word(w)) => format!("`{w}`"),
            Some(Tok::Quoted(q)) => format!("\"{q}\""),
            Some(Tok::Sym(s)) => format!("`{s}`"),
        };
        Fault::new(self.at(), format!("syntax error: expected {what}, found {found}"))
    }

    /// The next token as a word that need not be a keyword.
    pub(crate) fn string(&mut self, what: &str) -> Parsed<At<&'a str>> {
        let at = self.at();
        match self.peek() {
            Some(Tok::Word(s) | Tok::Quoted(s)) => {
                self.i += 1;
                Ok(At::new(at, s))
            }
            _ => Err(self.expected(what)),
        }
    }

    /// The next token as an unquoted word.
    pub(crate) fn word(&mut self, what: &str) -> Parsed<At<&'a str>> {
        match self.peek() {
            Some(Tok::Word(_)) => self.string(what),
            _ => Err(self.expected(what)),
        }
    }

    /// The next token as a number.
    pub(crate) fn number<T: TryFrom<u64>>(&mut self, what: &str) -> Parsed<At<T>> {
        let expected = self.expected(what);
        let word = self.word(what)?;
        let number = parse_number(word.value).ok_or(expected)?;
        let value = T::try_from(number)
            .map_err(|_| Fault::new(word.at, format!("number {number} is out of range for {what}")))?;
        Ok(At::new(word.at, value))
    }

    /// Takes the ends of lines that do not matter within braces.
    pub(crate) fn skip_newlines(&mut self) {
        while self.peek() == Some(&Tok::Newline) {
            self.i += 1;
        }
    }

    /// One item, or a list `{ item, item }`; commas are optional.
    pub(crate) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        if !self.is_sym("{") {
            return Ok(vec![item(self)?]);
        }
        self.braces(|c, items| {
            items.push(item(c)?);
            Ok(())
        })
    }

    /// A list within braces whose items may add several things each.
    pub(crate) fn braces<T>(
        &mut self,
        mut item: impl FnMut(&mut Self, &mut Vec<T>) -> Parsed<()>,
    ) -> Parsed<Vec<T>> {
        let open = self.at();
        self.expect_sym("{")?;
        let mut items = Vec::new();
        loop {
            self.skip_newlines();
            if self.accept_sym("}") {
                break;
            }
            item(self, &mut items)?;
            self.skip_newlines();
            self.accept_sym(",");
        }
        if items.is_empty() {
            return Err(Fault::new(open, "empty list").help("a list holds at least one item"));
        }
        Ok(items)
    }

    /// Items separated by commas (or not) up to `)`; the opening parenthesis is taken here.
    pub(crate) fn parenthesised(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<()>) -> Parsed<()> {
        self.expect_sym("(")?;
        loop {
            self.skip_newlines();
            if self.accept_sym(")") {
                return Ok(());
            }
            item(self)?;
            self.accept_sym(",");
        }
    }

    /// Whether nothing is left.
    pub(crate) fn is_done(&self) -> bool {
        self.i >= self.line.tokens.len()
    }

    /// Nothing may be left.
    pub(crate) fn finish(&mut self) -> Parsed<()> {
        self.skip_newlines();
        if self.is_done() { Ok(()) } else { Err(self.expected("the end of the rule")) }
    }
}

/// A decimal number, or a hexadecimal one with `0x`.
pub(crate) fn parse_number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None if word.bytes().all(|b| b.is_ascii_digit()) => word.parse().ok(),
        None => None,
    }
}
