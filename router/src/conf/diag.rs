//! Complaints about a configuration file: where, what, and what would be right.
//!
//! ```text
//! configs/plain/softnet.toml:12:10: no interface is called "lan1"
//!    12 | parent = "lan1"
//!       |          ^^^^^^
//!       = there are lan0 and wan0
//! ```
//!
//! Lines and columns count from 1; a column is a character, not an octet. No colours.

use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A value and where it stands in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Its octets in the text.
    pub span: Range<usize>,
}

impl<T> At<T> {
    /// The same place, something else.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> At<U> {
        At { value: f(self.value), span: self.span }
    }
}

/// The text of a file and its name.
#[derive(Debug)]
pub struct Source {
    /// As the user named it.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

impl Source {
    /// Reads a file.
    pub fn read(path: &Path) -> io::Result<Arc<Source>> {
        Ok(Arc::new(Source { path: path.to_owned(), text: std::fs::read_to_string(path)? }))
    }

    /// The place of some octets of the text.
    pub fn place(&self, span: Range<usize>) -> Place {
        let start = self.floor(span.start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |i| i + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |i| start + i);
        let end = self.floor(span.end).clamp(start, line_end);
        Place {
            file: self.path.clone(),
            line: self.text[..start].matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            text: self.text[line_start..line_end].trim_end().to_owned(),
            width: self.text[start..end].chars().count().max(1),
        }
    }

    /// The place of a line and a column.
    pub fn line(&self, line: usize, column: usize) -> Place {
        let text = self.text.lines().nth(line.saturating_sub(1)).unwrap_or_default().trim_end().to_owned();
        Place { file: self.path.clone(), line, column, text, width: 1 }
    }

    fn floor(&self, mut at: usize) -> usize {
        at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

/// A place in a file, with its line for people to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Character of the line, from 1.
    pub column: usize,
    /// The line.
    pub text: String,
    /// How many characters of it are meant.
    pub width: usize,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, and probably not as intended.
    Warning,
}

/// One complaint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Where. No place: the file as a whole.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.severity == Severity::Warning { "warning: " } else { "" };
        let Some(place) = &self.place else {
            write!(f, "{word}{}", self.message)?;
            return self.hint.iter().try_for_each(|hint| write!(f, "\n  = {hint}"));
        };
        let Place { file, line, column, text, width } = place;
        writeln!(f, "{}:{line}:{column}: {word}{}", file.display(), self.message)?;
        let number = line.to_string();
        let gutter = number.len().max(4);
        // Tabs stay tabs in front of the caret, so that it stands below what it means whatever their width.
        let lead: String =
            text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(f, "{number:>gutter$} | {text}")?;
        write!(f, "{:gutter$} | {lead}{}", "", "^".repeat(*width))?;
        self.hint.iter().try_for_each(|hint| write!(f, "\n{:gutter$} = {hint}", ""))
    }
}

/// A configuration that cannot be used: all complaints about it.
#[derive(Clone, Debug, thiserror::Error)]
pub struct Invalid(pub Vec<Diagnostic>);

impl Invalid {
    /// A file that could not be read.
    pub fn unreadable(path: &Path, why: &io::Error) -> Invalid {
        let message = format!("{}: {}", path.display(), reason(why));
        Invalid(vec![Diagnostic { severity: Severity::Error, place: None, message, hint: None }])
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

/// What the system said, without its number.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    let mut text = text[..end].to_owned();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    text
}

/// Complaints about one file, as they are found.
#[derive(Debug)]
pub struct Complaints {
    source: Arc<Source>,
    list: Vec<Diagnostic>,
}

impl Complaints {
    /// None yet.
    pub fn new(source: Arc<Source>) -> Complaints {
        Complaints { source, list: Vec::new() }
    }

    /// Something is wrong.
    pub fn error(&mut self, span: &Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Severity::Error, span, message.into(), hint.into());
    }

    /// Keys that are there and may not be.
    pub(super) fn refuse<const N: usize>(
        &mut self,
        keys: [(&str, Option<&Range<usize>>); N],
        message: impl Fn(&str) -> String,
        hint: &str,
    ) {
        for (key, span) in keys.into_iter().filter_map(|(key, span)| Some((key, span?))) {
            self.error(span, message(key), hint);
        }
    }

    /// Something is strange.
    pub fn warn(&mut self, span: &Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Severity::Warning, span, message.into(), hint.into());
    }

    fn push(&mut self, severity: Severity, span: &Range<usize>, message: String, hint: String) {
        let place = Some(self.source.place(span.clone()));
        self.list.push(Diagnostic { severity, place, message, hint: (!hint.is_empty()).then_some(hint) });
    }

    /// Whether anything is wrong.
    pub fn any_error(&self) -> bool {
        self.list.iter().any(|d| d.severity == Severity::Error)
    }

    /// All of them, in the order of the file.
    pub fn into_list(mut self) -> Vec<Diagnostic> {
        self.list.sort_by_key(|d| d.place.as_ref().map(|p| (p.line, p.column)));
        self.list
    }
}

/// The known word nearest to one that is not known, if one is near.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let near = known.iter().map(|k| (distance(word, k), *k)).min()?;
    (near.0 <= 1 + word.len() / 4).then_some(near.1)
}

/// Edits from one word to the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let cost = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// `a, b and c`.
pub fn list<T: AsRef<str>>(words: &[T]) -> String {
    match words {
        [] => "none".to_owned(),
        [one] => one.as_ref().to_owned(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", first.join(", "), last.as_ref())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source { path: "a.toml".into(), text: text.to_owned() }
    }

    #[test]
    fn a_complaint_shows_its_line_and_points_at_the_word() {
        let text = "[router]\n\tnäme = \"x\"\n";
        let at = text.find("\"x\"").unwrap();
        let mut complaints = Complaints::new(Arc::new(source(text)));
        complaints.error(&(at..at + 3), "bad", "better");
        let shown = Invalid(complaints.into_list()).to_string();
        assert_eq!(shown, "a.toml:2:9: bad\n   2 | \tnäme = \"x\"\n     | \t       ^^^\n     = better");
    }

    #[test]
    fn places_stay_inside_the_text() {
        let text = source("a = ü");
        assert_eq!(text.place(5..99).column, 5);
        assert_eq!((text.place(99..120).line, text.place(99..120).width), (1, 1));
        let empty = source("");
        assert_eq!((empty.place(0..0).line, empty.place(0..0).column), (1, 1));
    }

    #[test]
    fn a_near_miss_is_recognised_and_a_far_one_is_not() {
        assert_eq!(nearest("wrokers", &["workers", "cpus"]), Some("workers"));
        assert_eq!(nearest("worker", &["workers", "cpus"]), Some("workers"));
        assert_eq!(nearest("adress", &["address", "mtu"]), Some("address"));
        assert_eq!(nearest("zzz", &["address", "mtu"]), None);
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
    }
}
