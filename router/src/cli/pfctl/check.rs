//! `softnet pfctl -n --env FILE`: a ruleset read for a world that is written down, without any router.

use super::{super::Exit, Ctl, Failure, read};
use kern::lock::Root;
use pf::conf::Reading;
use std::path::Path;

impl Ctl<'_> {
    /// Reads a ruleset and, with `-v`, prints it as pfctl does. What is wrong is said on standard error.
    pub(super) fn check(&self, file: &Path, env: &Path) -> Result<Exit, Failure> {
        let env = pf::Environment::from_file(env).map_err(|e| Failure::Which(e.to_string()))?;
        let text = read(file)?;
        let anchor = self.anchor().path;
        let reading = Reading {
            env: &env,
            defines: &self.args.define,
            anchor: &anchor,
            fingerprints: None,
            options: None,
            engines: false,
        };
        let conf = match reading.text(&file.display().to_string(), &text) {
            Ok(mut conf) => {
                pf::optimize::optimize(&mut conf, self.args.optimizer, None);
                conf
            }
            Err(errors) => {
                for error in errors {
                    eprintln!("{}", error.with_caret());
                }
                eprintln!("pfctl: Syntax error in config file: pf rules not loaded");
                return Ok(Exit::No);
            }
        };
        if let Some(packet) = &self.args.explain {
            let wrong = |e: &dyn std::fmt::Display| Failure::Which(e.to_string());
            let question = pf::explain::Question::parse(packet, &env).map_err(|e| wrong(&e))?;
            let report = crate::daemon::explain_conf(conf, &question, &env, None, &mut Root::claim());
            return self.print_explained(&report.map_err(|e| wrong(&e))?);
        }
        if self.at.json || self.args.verbose > 0 {
            let env = pf::Environment { numeric_ports: self.args.numeric, ..env.clone() };
            let text = match reading.anchor {
                "" => pf::print::listing(&conf, &env),
                anchor => pf::print::anchor(&conf, anchor, &env),
            };
            let report = serde_json::json!({ "rules": text.lines().collect::<Vec<_>>() });
            self.print("load", &report, || text)?;
        }
        Ok(Exit::Good)
    }
}
