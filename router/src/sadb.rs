//! The control thread's hand on the databases of IPsec: what setkey(8) says, carried out on a running router.
//!
//! ```text
//!   text ─► statements ─► checked on what is configured now ─► SAs and policies ─► one snapshot
//! ```
//!
//! All statements of a text take effect at once, or none does. The next snapshot has every SA that stays as it was, numbers
//! and window included; packets that had been given an SA that goes take its successor ([`ipsec::Sad::successor`]).
//! Policies and SAs are published together, so no packet sees the one without the other.
//!
//! What setkey changes is not written to ipsec.conf. It stays over a reload unless that file was changed: then the file is
//! the truth again.

use crate::{
    commit,
    control::{
        proto::{PolicyReport, SaReport},
        setkey::{SetkeyAnswer, SetkeyReport, Statements},
    },
    hooks::Tunnels,
    netconfig::NetConfig,
    router::Router,
};
use ipsec::conf::{
    Conf, ValidConf,
    statement::{Command, SaName},
    with_carets,
};
use kern::lock::Root;

/// Carries statements out. `conf` is what is configured, and what will be. The error is for people: every fault with its
/// line and a caret.
pub fn setkey(
    router: &mut Router,
    root: &mut Root,
    conf: &mut Option<ValidConf>,
    said: &Statements,
) -> Result<SetkeyReport, String> {
    let text = said.text.expose();
    let carets = |errors: Vec<_>| with_carets(&errors, text);
    let statements = Conf::parse(&said.file, text).map_err(carets)?;
    let valid = statements.check(conf.as_ref().unwrap_or(&ValidConf::default())).map_err(carets)?;
    let commands: Vec<&Command> = statements.statements().iter().map(|s| &s.value).collect();
    // A question that stands before all changes is about what was before them.
    let first_change = commands.iter().position(|c| is_change(c)).unwrap_or(commands.len());
    let (before, after) = commands.split_at(first_change);
    let mut answers: Vec<_> = before.iter().filter_map(|c| answer(router, root, c)).collect();
    if !after.is_empty() && !said.check {
        publish(router, root, &valid)?;
    }
    answers.extend(after.iter().filter_map(|c| answer(router, root, c)));
    let report = SetkeyReport {
        answers,
        warnings: valid.warnings().iter().map(ToString::to_string).collect(),
        sas: valid.sas().len(),
        policies: valid.policies().len(),
    };
    if !said.check {
        *conf = Some(valid);
    }
    Ok(report)
}

/// Gives workers these SAs and policies, and nothing else new.
fn publish(router: &mut Router, root: &mut Root, conf: &ValidConf) -> Result<(), String> {
    let (sad, spd) = commit::build_ipsec(router, root, conf).map_err(|e| e.to_string())?;
    let tunnels = Tunnels::new(router.net().all().map(|i| &**i), &sad);
    let net = NetConfig { sad: sad.into(), spd: spd.into(), tunnels, ..router.net().clone() };
    router.apply(root, net).map_err(|late| late.to_string())
}

fn is_change(command: &Command) -> bool {
    !matches!(command, Command::Get(_) | Command::Dump(_) | Command::SpdDump | Command::Exit)
}

fn answer(router: &Router, root: &mut Root, command: &Command) -> Option<SetkeyAnswer> {
    match command {
        Command::Get(name) => Some(SetkeyAnswer::Sas(sas(router, root, |sa| is_named(sa, name)))),
        Command::Dump(protocol) => {
            let wanted = |sa: &SaReport| protocol.is_none_or(|p| p.name() == sa.proto);
            Some(SetkeyAnswer::Sas(sas(router, root, wanted)))
        }
        Command::SpdDump => Some(SetkeyAnswer::Policies(PolicyReport::all(&router.net().spd))),
        _ => None,
    }
}

fn sas(router: &Router, root: &mut Root, wanted: impl Fn(&SaReport) -> bool) -> Vec<SaReport> {
    let now = router.shared().clock.now();
    let mut all = SaReport::all(&router.net().sad, &mut root.top(), now);
    all.retain(wanted);
    all
}

fn is_named(sa: &SaReport, name: &SaName) -> bool {
    let ends = [&name.src, &name.dst].map(|end| end.value.to_string());
    (&sa.src, &sa.dst) == (&ends[0], &ends[1])
        && sa.proto == name.protocol.value.name()
        && sa.spi == name.spi.value.0
}
