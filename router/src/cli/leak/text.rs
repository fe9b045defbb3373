//! The laboratory's tables as text, and what they say of the report.

use crate::{
    cli::table::{self, Align, row},
    leak::report::{LockUse, Report, Row, Verdict},
};

/// All of it.
pub(super) fn of(report: &Report) -> String {
    let part = |name: &str| -> Vec<&Row> { report.rows.iter().filter(|row| row.table == name).collect() };
    let mut text = String::new();
    for (name, title) in [("main", "the report's table"), ("beyond", "beyond the report")] {
        let rows = part(name);
        if !rows.is_empty() {
            text.extend([title, ":\n", &set(&rows), "\n"]);
        }
    }
    for row in report.rows.iter().filter(|row| row.stuck.is_some()) {
        let what = row.stuck.as_deref().unwrap_or_default();
        text.extend(["stuck: ", row.profile, " ", row.crypto, " ", &row.carried(), ": ", what, "\n"]);
    }
    text += &report.words();
    text += &report.throughput();
    let odd: Vec<&Row> = report.rows.iter().filter(|row| !row.as_expected).collect();
    let verdict = if odd.is_empty() {
        "every cell is as expected\n".to_owned()
    } else {
        format!("{} cells are NOT as expected\n", odd.len())
    };
    text += &verdict;
    text + "A cell without a loss says: none seen in so many packets, which is no proof.\n"
}

fn set(rows: &[&Row]) -> String {
    let mut lines = vec![row([
        "profile",
        "crypto",
        "traffic",
        "family",
        "CPUs",
        "packets",
        "leaked",
        "stranded",
        "incidents",
        "jammed",
        "qfull",
        "corrupt",
        "Mpps",
        "S wait",
        "K wait",
        "S hold",
        "K hold",
        "last seen",
        "verdict",
        "",
    ])];
    lines.extend(rows.iter().map(|row| cells(row)));
    let left = [0, 1, 2, 3, 17, 18, 19];
    let columns: Vec<Align> =
        (0..20).map(|n| if left.contains(&n) { Align::Left } else { Align::Right }).collect();
    table::set(&columns, &lines)
}

fn cells(row: &Row) -> Vec<String> {
    let verdict = match row.verdict {
        Verdict::Leak => "leak",
        Verdict::None => "none",
        Verdict::Stranded => "stranded",
        Verdict::Indeterminate => "indeterminate",
    };
    let place = row.last_seen.first().map_or_else(|| "-".to_owned(), |(q, path, _)| format!("{q}, {path}"));
    let wait = |l: &LockUse| {
        (l.waited * 100).checked_div(l.taken).map_or_else(|| "-".to_owned(), |percent| format!("{percent}%"))
    };
    let hold = |l: &LockUse| {
        if l.hold_ns == 0 { "-".to_owned() } else { format!("{}ns", l.hold_ns) }
    };
    let mut note = row.note.to_owned();
    if let Some(n) = row.exhausted_after {
        note = format!("pool exhausted after {n} packets; {note}");
    }
    if row.odd > 0 {
        note = format!("{} odd; {note}", row.odd);
    }
    if !row.as_expected {
        note = format!("EXPECTED {}; {note}", row.expected);
    }
    vec![
        row.profile.to_owned(),
        if row.placement.contains("soft=local") {
            row.crypto.to_owned()
        } else {
            format!("{} ({})", row.crypto, row.placement)
        },
        row.carried(),
        row.family.to_owned(),
        row.vcpus.to_string(),
        row.packets.to_string(),
        row.leaked.to_string(),
        row.stranded.to_string(),
        row.incidents.to_string(),
        row.jammed.to_string(),
        row.qfull.to_string(),
        row.corrupt_seen.to_string(),
        format!("{:.2}", row.mpps),
        wait(&row.softnet),
        wait(&row.kernel),
        hold(&row.softnet),
        hold(&row.kernel),
        place,
        verdict.to_owned(),
        note.trim_end_matches("; ").to_owned(),
    ]
}
