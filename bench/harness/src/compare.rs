//! What many rounds come to: medians, ratios and their minimum; and how that is told.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Figure, Round, Side, Subject};

/// Everything that is kept of a run of one subject.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Outcome {
    pub subject: Subject,
    /// The day it ended, as YYYY-MM-DD.
    pub date: String,
    /// How it was asked for.
    pub command: String,
    pub machine: Machine,
    /// What each program says about its version, ours first.
    pub versions: Vec<String>,
    pub took_s: f64,
    pub rounds: Vec<Pair>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
pub struct Machine {
    pub kernel: String,
    pub processor: String,
    pub processors: usize,
    pub memory_gb: f64,
}

/// One round of each side, one after the other.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Pair {
    pub ours: Round,
    pub peer: Round,
}

impl Pair {
    fn side(&self, side: Side) -> &Round {
        match side {
            Side::Ours => &self.ours,
            Side::Peer => &self.peer,
        }
    }
}

/// One figure over all rounds. What was not measured is absent.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    pub ours: Option<f64>,
    pub peer: Option<f64>,
    /// Of the medians.
    pub ratio: Option<f64>,
    /// The worst round's.
    pub ratio_min: Option<f64>,
    /// Whether what is aimed at was reached; absent when nothing is.
    pub reached: Option<bool>,
}

impl Outcome {
    pub fn compare(&self, figure: &Figure) -> Compared {
        let of = |pair: &Pair, side| pair.side(side).figures.get(&figure.name).copied();
        let all = |side| self.rounds.iter().filter_map(|pair| of(pair, side)).collect::<Vec<_>>();
        let (ours, peer) = (percentile(all(Side::Ours), 50), percentile(all(Side::Peer), 50));
        let ratio = ours.zip(peer).map(|(ours, peer)| figure.ratio(ours, peer));
        let ratios = self.rounds.iter().filter_map(|pair| Some((of(pair, Side::Ours)?, of(pair, Side::Peer)?)));
        let ratio_min = ratios.map(|(ours, peer)| figure.ratio(ours, peer)).min_by(f64::total_cmp);
        let times = figure.times.zip(ratio).map(|(times, ratio)| ratio >= times);
        // a limit is passed in the direction that is better
        let limit = figure.limit.zip(ours).map(|(limit, ours)| figure.ratio(ours, limit) >= 1.0);
        let reached = match (times, limit) {
            (Some(times), Some(limit)) => Some(times && limit),
            (times, limit) => times.or(limit),
        };
        Compared { ours, peer, ratio, ratio_min, reached }
    }

    /// The median of what a side cost, by `part`.
    pub fn usage(&self, side: Side, part: fn(&crate::Usage) -> f64) -> Option<f64> {
        percentile(self.rounds.iter().map(|pair| part(&pair.side(side).usage)).collect(), 50)
    }

    /// One JSON object: our median of each figure under its name, and everything that is kept.
    pub fn json(&self) -> serde_json::Result<Value> {
        let mut object = serde_json::to_value(self)?;
        for figure in &self.subject.figures {
            object[&figure.name] = self.compare(figure).ours.into();
        }
        Ok(object)
    }

    /// Raw rounds, then medians and ratios, for a person.
    pub fn told(&self) -> String {
        let mut text = String::new();
        // writing into a String cannot fail
        let _ = writeln!(text, "{}: ours and {}, {} rounds", self.subject.title, self.subject.peer, self.rounds.len());
        for version in &self.versions {
            let _ = writeln!(text, "  {version}");
        }
        self.tell_rounds(&mut text);
        self.tell_medians(&mut text);
        text
    }

    fn tell_rounds(&self, text: &mut String) {
        for (number, pair) in (1..).zip(&self.rounds) {
            for side in Side::BOTH {
                let _ = writeln!(text, "{}", raw(number, side, pair.side(side)));
            }
        }
    }

    fn tell_medians(&self, text: &mut String) {
        let head = ["medians of rounds", "ours", "peer", "", "ratio", "least", "aim"];
        let _ = writeln!(text, "{}", row(head.map(String::from)));
        for figure in &self.subject.figures {
            let compared = self.compare(figure);
            let times = |ratio: Option<f64>| ratio.map_or_else(String::new, |ratio| format!("{}x", rounded(ratio)));
            let cells = [
                figure.title.clone(),
                shown(compared.ours),
                shown(compared.peer),
                figure.unit.clone(),
                times(compared.ratio),
                times(compared.ratio_min),
                figure.aim(compared.reached),
            ];
            let _ = writeln!(text, "{}", row(cells));
        }
        for (title, unit, part) in [
            ("processor time of a round", "s", (|usage| usage.cpu_s) as fn(&crate::Usage) -> f64),
            ("most memory in a round (PSS)", "MB", |usage| usage.memory_peak_mb),
        ] {
            let (ours, peer) = (self.usage(Side::Ours, part), self.usage(Side::Peer, part));
            let cells =
                [title.into(), shown(ours), shown(peer), unit.into(), String::new(), String::new(), String::new()];
            let _ = writeln!(text, "{}", row(cells));
        }
    }
}

impl Figure {
    /// What is aimed at, and whether it was reached.
    pub fn aim(&self, reached: Option<bool>) -> String {
        let times = self.times.map(|times| format!("{}x", rounded(times)));
        let limit = self.limit.map(|limit| format!("{} {}", rounded(limit), self.unit));
        let aims: Vec<String> = times.into_iter().chain(limit).collect();
        let missed = if reached == Some(false) { ", missed" } else { "" };
        format!("{}{missed}", aims.join(" and "))
    }
}

/// Everything that one round of one side measured, in one line.
pub fn raw(number: usize, side: Side, round: &Round) -> String {
    let mut text = format!("round {number} {}:", side.word());
    for (name, value) in &round.figures {
        let _ = write!(text, " {name} {}", rounded(*value));
    }
    let usage = &round.usage;
    let (cpu, memory, resident) =
        (rounded(usage.cpu_s), rounded(usage.memory_peak_mb), rounded(usage.resident_peak_mb));
    let _ = write!(text, " | cpu {cpu} s, PSS peak {memory} MB, RSS peak {resident} MB");
    text
}

fn row([title, ours, peer, unit, ratio, least, aim]: [String; 7]) -> String {
    let line = format!("  {title:<48} {ours:>10} {peer:>10} {unit:<8} {ratio:>8} {least:>8}  {aim}");
    line.trim_end().to_owned()
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), rounded)
}

/// Three digits that count, more for what is large.
pub fn rounded(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The nearest-rank percentile; of an even number's middle two, the lower.
pub fn percentile(mut figures: Vec<f64>, rank: usize) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let place = (figures.len() * rank).div_ceil(100).saturating_sub(1);
    figures.get(place).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(figure: Figure, pairs: &[(f64, f64)]) -> Outcome {
        let round = |value: f64| {
            let mut round = Round::default();
            round.put(&figure.name, value);
            round
        };
        Outcome {
            rounds: pairs.iter().map(|(ours, peer)| Pair { ours: round(*ours), peer: round(*peer) }).collect(),
            subject: Subject::new("a", "A", "b").figures([figure]),
            date: "2026-01-02".into(),
            command: "bench a".into(),
            machine: Machine::default(),
            versions: vec!["ours 1".into()],
            took_s: 1.0,
        }
    }

    fn compared(figure: Figure, pairs: &[(f64, f64)]) -> Compared {
        let outcome = outcome(figure, pairs);
        outcome.compare(&outcome.subject.figures[0])
    }

    #[test]
    fn percentiles_are_figures_that_were_measured() {
        let hundred = || (1..=100).rev().map(f64::from).collect::<Vec<_>>();
        assert_eq!(percentile(hundred(), 50), Some(50.0));
        assert_eq!(percentile(hundred(), 99), Some(99.0));
        assert_eq!(percentile(vec![3.0, 1.0, 2.0], 50), Some(2.0));
        assert_eq!(percentile(vec![3.0], 99), Some(3.0));
        assert_eq!(percentile(Vec::new(), 50), None);
    }

    #[test]
    fn the_ratio_is_of_medians_and_its_minimum_of_the_worst_round() {
        let figure = Figure::lower("a", "", "ms").times(10.0);
        let all = compared(figure, &[(1.0, 10.0), (4.0, 12.0), (1.0, 30.0)]);
        assert_eq!((all.ours, all.peer), (Some(1.0), Some(12.0)));
        assert_eq!((all.ratio, all.ratio_min, all.reached), (Some(12.0), Some(3.0), Some(true)));
    }

    #[test]
    fn an_aim_that_has_two_parts_is_reached_when_both_are() {
        let figure = |limit| Figure::lower("a", "", "ms").times(5.0).limit(limit);
        assert_eq!(compared(figure(100.0), &[(90.0, 900.0)]).reached, Some(true));
        assert_eq!(compared(figure(80.0), &[(90.0, 900.0)]).reached, Some(false));
        assert_eq!(compared(figure(100.0), &[(90.0, 100.0)]).reached, Some(false));
        assert_eq!(compared(Figure::higher("a", "", ""), &[(90.0, 100.0)]).reached, None);
    }

    #[test]
    fn the_object_for_programs_has_our_medians_by_name_and_the_rounds() {
        let object = outcome(Figure::lower("a_ms", "", "ms"), &[(1.0, 9.0), (3.0, 9.0), (2.0, 9.0)]).json().unwrap();
        assert_eq!((&object["a_ms"], &object["rounds"][1]["ours"]["figures"]["a_ms"]), (&2.0.into(), &3.0.into()));
    }

    #[test]
    fn every_round_and_whether_the_aim_was_missed_are_told() {
        let text = outcome(Figure::higher("puts", "puts", "1/s").times(10.0), &[(50.0, 10.0), (60.0, 10.0)]).told();
        for part in ["round 1 ours: puts 50.0", "round 2 peer: puts 10.0", "5.00x", "10.0x, missed"] {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
    }
}
