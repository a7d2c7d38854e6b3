//! One run, written down: what the command of the lab is told, and what `--resume` goes on with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::schedule::Planned;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Where results go; the other files are beside the plan.
    pub dir: PathBuf,
    /// Upstream's suite.
    pub suite: PathBuf,
    /// What starts it when it runs in one go.
    pub ginkgo: Option<PathBuf>,
    pub procs: usize,
    pub rounds: u32,
    pub nodes: usize,
    /// Whether these are all that the suite has.
    pub whole: bool,
    pub specs: Vec<Planned>,
}

impl Plan {
    pub fn path(dir: &Path) -> PathBuf {
        dir.join("plan.json")
    }

    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("understanding {}", path.display()))
    }

    pub fn write(&self) -> Result<()> {
        fs::write(Self::path(&self.dir), serde_json::to_vec(self)?).context("writing the plan")
    }

    /// The results of this run, as they come.
    pub fn results(&self) -> PathBuf {
        Self::results_in(&self.dir)
    }

    pub fn results_in(dir: &Path) -> PathBuf {
        dir.join("run.jsonl")
    }

    /// What went wrong with the cluster while it ran.
    pub fn troubles(&self) -> PathBuf {
        self.dir.join("troubles.txt")
    }

    /// What failed specs printed.
    pub fn output(&self) -> PathBuf {
        self.dir.join("output")
    }

    /// What the suite is told about the cluster, beside which specs to run.
    pub fn suite_arguments(&self) -> Vec<String> {
        let kubeconfig = std::env::var("KUBECONFIG").unwrap_or_default();
        vec![
            "--provider=skeleton".into(),
            format!("--kubeconfig={kubeconfig}"),
            "--dump-logs-on-failure=false".into(),
            format!("--num-nodes={}", self.nodes),
            "--allowed-not-ready-nodes=0".into(),
        ]
    }
}
