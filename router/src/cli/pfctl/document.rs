//! What `pfctl --json` prints: one document, however much is asked for at once.

use crate::cli::ask::Failure;
use serde::Serialize;
use serde_json::{Map, Value};
use std::{cell::RefCell, io};

/// Answers, by what was asked for.
#[derive(Debug, Default)]
pub(super) struct Document(RefCell<Map<String, Value>>);

impl Document {
    /// Keeps an answer.
    pub(super) fn add(&self, name: &str, report: &impl Serialize) -> Result<(), Failure> {
        let report = serde_json::to_value(report).map_err(io::Error::from)?;
        self.0.borrow_mut().insert(name.to_owned(), report);
        Ok(())
    }

    /// The document: one answer as it is, several by their names; none if nothing was answered.
    pub(super) fn finish(self) -> Option<Value> {
        let mut answers = self.0.into_inner();
        if answers.len() > 1 {
            return Some(Value::Object(answers));
        }
        let name = answers.keys().next()?.clone();
        answers.remove(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_answer_stands_alone_and_several_have_names() {
        assert_eq!(Document::default().finish(), None);
        let document = Document::default();
        document.add("timeouts", &[1, 2]).unwrap();
        assert_eq!(document.finish(), Some(json!([1, 2])));
        let document = Document::default();
        document.add("flush_rules", &json!({ "count": 1 })).unwrap();
        document.add("rules", &json!([])).unwrap();
        assert_eq!(document.finish(), Some(json!({ "flush_rules": { "count": 1 }, "rules": [] })));
    }
}
