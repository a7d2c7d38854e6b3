//! One round of one side, as a benchmark's program writes it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::Usage;

#[derive(Serialize, Deserialize, ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Ours,
    Peer,
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::Ours, Side::Peer];

    /// As it is written on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Side::Ours => "ours",
            Side::Peer => "peer",
        }
    }
}

/// What one round of one side measured.
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
pub struct Round {
    /// By the figure's name, in its unit.
    pub figures: BTreeMap<String, f64>,
    /// Single measurements behind figures, for whoever wants to look closer.
    #[serde(default)]
    pub samples: BTreeMap<String, Vec<f64>>,
    pub usage: Usage,
}

impl Round {
    pub fn put(&mut self, name: &str, value: f64) {
        self.figures.insert(name.into(), value);
    }

    /// Keeps single measurements; the figure made of them is the caller's to put.
    pub fn keep(&mut self, name: &str, samples: Vec<f64>) {
        self.samples.insert(name.into(), samples);
    }

    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).context("reading what a round wrote")?;
        serde_json::from_str(&text).context("understanding what a round wrote")
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, serde_json::to_vec(self)?).context("writing what the round measured")
    }
}
