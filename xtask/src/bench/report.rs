//! `bench --report`: `docs/performance.md` and README's figures, from the outcomes that were kept.
//!
//! The page is written whole. In README only what stands between the two markers changes.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use bench_harness::{Figure, Outcome, Side, Usage, rounded};

use super::subjects::ROWS;
use crate::paths;

const BEGIN: &str = "<!-- written by `cargo xtask bench --report` -->";
const END: &str = "<!-- until here -->";

/// The five figures a user cares about: subject, figure, and what it is in plain words.
const README_FIGURES: [(&str, &str, &str); 5] = [
    ("start", "node_ready_ms", "from start to a ready node with working DNS"),
    ("idle", "idle_memory_mb", "memory of an idle cluster of one node"),
    ("pod", "pod_ready_p99_ms", "pod created to Ready, p99"),
    ("api", "create_32_rate", "durable creates through the API"),
    ("services", "services_10k_ms", "10,000 services programmed"),
];

/// Reads what was kept under `kept`, writes both places.
pub fn write(kept: &Path) -> Result<()> {
    let outcomes = read(kept)?;
    if outcomes.is_empty() {
        bail!("nothing was measured yet: run `cargo xtask bench all` first");
    }
    fs::write(paths::root().join("docs/performance.md"), page(&outcomes)).context("writing docs/performance.md")?;
    let readme = paths::root().join("README.md");
    let text = fs::read_to_string(&readme)?;
    fs::write(&readme, between_markers(&text, &figures_for_readme(&outcomes))?).context("writing README.md")?;
    eprintln!("docs/performance.md and README.md are written from {} subjects", outcomes.len());
    Ok(())
}

/// The kept outcomes, in the table's order.
fn read(kept: &Path) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for row in ROWS {
        let path = kept.join(row.name).with_extension("json");
        if path.exists() {
            let text = fs::read_to_string(&path)?;
            outcomes.push(serde_json::from_str(&text).with_context(|| format!("understanding {}", path.display()))?);
        }
    }
    Ok(outcomes)
}

fn page(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "# Performance\n\n\
         Written by `cargo xtask bench --report`; every figure is measured beside a peer in the same run, on the same machine, by the\n\
         same client program, ours and the peer taking turns. A ratio says how many times better ours is, of the medians of the rounds;\n\
         \"least\" is the worst round's. What is aimed at stands beside it, and where it was missed, that.\n",
    );
    for outcome in outcomes {
        section(&mut text, outcome);
    }
    let missing: Vec<&str> =
        ROWS.iter().map(|row| row.name).filter(|name| outcomes.iter().all(|one| one.subject.name != *name)).collect();
    if !missing.is_empty() {
        // writing into a String cannot fail
        let _ = writeln!(text, "\nNot measured: {}.", missing.join(", "));
    }
    text
}

fn section(text: &mut String, outcome: &Outcome) {
    let subject = &outcome.subject;
    let machine = &outcome.machine;
    // writing into a String cannot fail
    let _ = writeln!(text, "\n## {}\n", subject.title);
    let _ = writeln!(text, "Peer: {}. {}\n", subject.peer, subject.setting);
    let _ = writeln!(text, "| | ours | peer | | ratio | least | aim |\n|---|---:|---:|---|---:|---:|---|");
    for figure in &subject.figures {
        let _ = writeln!(text, "{}", line(outcome, figure));
    }
    for (title, unit, part) in [
        ("processor time of a round", "s", (|usage| usage.cpu_s) as fn(&Usage) -> f64),
        ("most memory in a round (PSS)", "MB", |usage| usage.memory_peak_mb),
    ] {
        let cell = |side| outcome.usage(side, part).map_or_else(String::new, rounded);
        let _ = writeln!(text, "| {title} | {} | {} | {unit} | | | |", cell(Side::Ours), cell(Side::Peer));
    }
    let (count, took_min) = (outcome.rounds.len(), outcome.took_s / 60.0);
    let _ =
        writeln!(text, "\n`{}`, {}, {count} rounds in {} minutes.", outcome.command, outcome.date, rounded(took_min));
    let _ = writeln!(
        text,
        "{} processors ({}), {} GB, {}. {}.",
        machine.processors,
        machine.processor,
        rounded(machine.memory_gb),
        machine.kernel,
        outcome.versions.join("; ")
    );
}

fn line(outcome: &Outcome, figure: &Figure) -> String {
    let compared = outcome.compare(figure);
    let number = |value: Option<f64>| value.map_or_else(String::new, rounded);
    let times = |ratio: Option<f64>| ratio.map_or_else(String::new, |ratio| format!("{}x", rounded(ratio)));
    format!(
        "| {} | {} | {} | {} | {} | {} | {} |",
        figure.title,
        number(compared.ours),
        number(compared.peer),
        figure.unit,
        times(compared.ratio),
        times(compared.ratio_min),
        figure.aim(compared.reached)
    )
}

fn figures_for_readme(outcomes: &[Outcome]) -> String {
    let mut text = String::from("| | Coracle | peer | |\n|---|---:|---:|---|\n");
    for (subject, name, words) in README_FIGURES {
        let outcome = outcomes.iter().find(|outcome| outcome.subject.name == subject);
        let figure = outcome.and_then(|outcome| outcome.subject.figures.iter().find(|figure| figure.name == name));
        let Some((outcome, figure)) = outcome.zip(figure) else { continue };
        let compared = outcome.compare(figure);
        let value =
            |value: Option<f64>| value.map_or_else(String::new, |value| format!("{} {}", rounded(value), figure.unit));
        let (ours, peer, peer_name) = (value(compared.ours), value(compared.peer), &outcome.subject.peer);
        // writing into a String cannot fail
        let _ = writeln!(text, "| {words} | {ours} | {peer} | {peer_name} |");
    }
    text
}

/// `text` with what stands between the markers replaced by `inner`.
fn between_markers(text: &str, inner: &str) -> Result<String> {
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("README.md has no {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("README.md has no {END}"))?;
    Ok(format!("{before}{BEGIN}\n{inner}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bench_harness::{Machine, Pair, Round, Subject};

    fn outcome() -> Outcome {
        let round = |value| {
            let mut round = Round::default();
            round.put("create_32_rate", value);
            round
        };
        Outcome {
            subject: Subject::new("api", "The API", "kube-apiserver").figures([Figure::higher(
                "create_32_rate",
                "creates",
                "1/s",
            )
            .times(10.0)]),
            date: "2026-01-02".into(),
            command: "cargo xtask bench api --rounds 1".into(),
            machine: Machine::default(),
            versions: vec!["coracle 1".into(), "kube-apiserver 2".into()],
            took_s: 60.0,
            rounds: vec![Pair { ours: round(8000.0), peer: round(1000.0) }],
        }
    }

    #[test]
    fn the_page_has_ratios_aims_versions_and_what_is_missing() {
        let page = page(&[outcome()]);
        for part in
            ["| creates | 8000 | 1000 | 1/s | 8.00x | 8.00x | 10.0x, missed |", "kube-apiserver 2", "Not measured: "]
        {
            assert!(page.contains(part), "{part} is missing:\n{page}");
        }
    }

    #[test]
    fn the_readme_changes_between_its_markers_only() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = between_markers(&text, &figures_for_readme(&[outcome()])).unwrap();
        assert!(new.starts_with("a\n") && new.ends_with("\nb\n") && !new.contains("old"), "{new}");
        assert!(new.contains("| durable creates through the API | 8000 1/s | 1000 1/s | kube-apiserver |"), "{new}");
        assert!(between_markers("no markers", "").is_err());
    }

    #[test]
    fn the_readme_of_this_clone_has_the_markers() {
        let text = fs::read_to_string(paths::root().join("README.md")).unwrap();
        assert!(between_markers(&text, "x\n").is_ok());
    }
}
