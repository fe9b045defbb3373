//! What is said about the databases of IPsec, in the language of setkey(8).

use super::{
    report::{PolicyReport, SaReport},
    secret::SecretText,
};
use serde::{Deserialize, Serialize};

/// Statements to carry out on the running router: all of them, or none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statements {
    /// What messages call the text.
    pub file: String,
    /// The text.
    pub text: SecretText,
    /// Check only.
    #[serde(default)]
    pub check: bool,
}

/// What came of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SetkeyReport {
    /// Answers to `get`, `dump` and `spddump`, in order.
    pub answers: Vec<SetkeyAnswer>,
    /// What can be done but is probably not meant, of all that is configured now.
    pub warnings: Vec<String>,
    /// SAs there are now.
    pub sas: usize,
    /// Policies there are now.
    pub policies: usize,
}

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetkeyAnswer {
    /// `get`, `dump`.
    Sas(Vec<SaReport>),
    /// `spddump`.
    Policies(Vec<PolicyReport>),
}
