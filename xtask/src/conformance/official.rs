//! `--official`: everything through `ginkgo` in one go, the way a certification run does it. Nothing is stopped at a
//! limit of ours and nothing can be resumed; the results come at the end.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::message;
use super::plan::Plan;
use super::protocol::Report;
use super::results::{self, Outcome, State};
use super::specs::pattern_of;

/// A failing spec may wait ten minutes for its own time-out, and there are hundreds.
const TIMEOUT: &str = "--timeout=24h";

#[derive(Deserialize)]
struct Suite {
    #[serde(rename = "SpecReports")]
    reports: Vec<Report>,
}

pub fn run(plan: &Plan) -> Result<ExitCode> {
    let ginkgo = plan.ginkgo.as_ref().context("one go needs ginkgo")?;
    let home = plan.dir.join("home");
    std::fs::create_dir_all(&home)?;
    let mut command = Command::new(ginkgo);
    command.arg(format!("--procs={}", plan.procs)).args([
        TIMEOUT,
        "--no-color",
        "--keep-going",
        "--json-report=report.json",
    ]);
    command.arg(format!("--output-dir={}", plan.dir.display())).args(focus(plan)).arg(&plan.suite).arg("--");
    command.args(plan.suite_arguments()).arg(format!("--report-dir={}", plan.dir.display()));
    command.env("HOME", &home).env("KUBECACHEDIR", home.join("kube-cache")).current_dir(&home).stdin(Stdio::null());
    // that specs failed is in the report
    let status = command.status().context("starting ginkgo")?;
    let text = std::fs::read(plan.dir.join("report.json"));
    let text = text.with_context(|| format!("ginkgo ended with {status} and left no report"))?;
    let outcomes = outcomes(&text)?;
    if outcomes.is_empty() {
        bail!("ginkgo ended with {status} and ran nothing");
    }
    let mut ledger = results::Ledger::at(&plan.results())?;
    outcomes.iter().try_for_each(|outcome| ledger.add(outcome))?;
    Ok(ExitCode::SUCCESS)
}

fn focus(plan: &Plan) -> Vec<String> {
    if plan.whole {
        return vec![r"--focus=\[Conformance\]".into()];
    }
    plan.specs.iter().map(|planned| format!("--focus={}", pattern_of(&planned.spec.name))).collect()
}

/// The specs of a report that were to run.
fn outcomes(text: &[u8]) -> Result<Vec<Outcome>> {
    let suites: Vec<Suite> = serde_json::from_slice(text).context("understanding ginkgo's report")?;
    let reports = suites.iter().flat_map(|suite| &suite.reports);
    // one that was not in focus is skipped without a reason
    let ran = reports.filter(|report| report.is_spec() && (report.state != "skipped" || report.failure.is_some()));
    Ok(ran.map(outcome).collect())
}

fn outcome(report: &Report) -> Outcome {
    let state = State::of(&report.state);
    let seconds = std::time::Duration::from_nanos(report.run_time_ns).as_secs_f64();
    let (name, message, output) = (report.name(), message::of(report), String::new());
    Outcome { name, state, seconds, ended_s: 0.0, round: 1, message, output }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_ginkgo_s_is_read_without_what_was_not_in_focus() {
        let spec = |text: &str, state: &str, failure: Option<&str>| {
            let mut spec = serde_json::json!({
                "ContainerHierarchyTexts": ["[sig-x] A", ""], "LeafNodeType": "It", "LeafNodeText": text,
                "State": state, "RunTime": 1_500_000_000u64, "ParallelProcess": 2, "NumAttempts": 1
            });
            if let Some(failure) = failure {
                spec["Failure"] =
                    serde_json::json!({"Message": failure, "Location": {"FileName": "", "LineNumber": 0}});
            }
            spec
        };
        let before = serde_json::json!({"ContainerHierarchyTexts": null, "LeafNodeType": "SynchronizedBeforeSuite", "State": "passed"});
        let report = serde_json::json!([{"SuitePath": "/x", "SpecReports": [
            before, spec("runs", "passed", None), spec("other", "skipped", None),
            spec("cannot", "skipped", Some("needs two nodes")), spec("waits", "timedout", Some("a b\nc"))]}]);
        let read = outcomes(&serde_json::to_vec(&report).unwrap()).unwrap();
        let told: Vec<_> = read.iter().map(|o| (o.name.as_str(), o.state, o.message.as_str(), o.seconds)).collect();
        assert_eq!(
            told,
            [
                ("[sig-x] A runs", State::Passed, "", 1.5),
                ("[sig-x] A cannot", State::Skipped, "needs two nodes", 1.5),
                ("[sig-x] A waits", State::Failed, "a b c", 1.5)
            ]
        );
    }
}
