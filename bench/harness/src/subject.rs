//! What is measured, in which unit, which way is better, and what is aimed at.

use serde::{Deserialize, Serialize};

/// One benchmark: a row of figures that are measured together, on us and on a peer.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Subject {
    /// As on the command line; also the name of what is kept of it.
    pub name: String,
    /// A heading.
    pub title: String,
    /// Whom we are compared to, without versions: those are asked from the programs.
    pub peer: String,
    /// How both sides are set up and what the client does, in a sentence or two. For the report.
    pub setting: String,
    pub figures: Vec<Figure>,
}

impl Subject {
    pub fn new(name: &str, title: &str, peer: &str) -> Self {
        Self { name: name.into(), title: title.into(), peer: peer.into(), setting: String::new(), figures: Vec::new() }
    }

    pub fn setting(mut self, setting: &str) -> Self {
        self.setting = setting.into();
        self
    }

    pub fn figures(mut self, figures: impl IntoIterator<Item = Figure>) -> Self {
        self.figures.extend(figures);
        self
    }
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    Higher,
    Lower,
}

/// One number of a round.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Figure {
    /// The key in what is kept. Begins with the name that `--only` selects it by.
    pub name: String,
    pub title: String,
    /// "1/s", "ms", "MB" (10^6 bytes), "%", ...
    pub unit: String,
    pub better: Better,
    /// How many times better than the peer ours is meant to be.
    pub times: Option<f64>,
    /// What ours is meant to reach whatever the peer does, in the figure's unit.
    pub limit: Option<f64>,
    /// Measured on our side only.
    pub alone: bool,
}

impl Figure {
    pub fn higher(name: &str, title: &str, unit: &str) -> Self {
        Self::new(name, title, unit, Better::Higher)
    }

    pub fn lower(name: &str, title: &str, unit: &str) -> Self {
        Self::new(name, title, unit, Better::Lower)
    }

    fn new(name: &str, title: &str, unit: &str, better: Better) -> Self {
        let (name, title, unit) = (name.into(), title.into(), unit.into());
        Self { name, title, unit, better, times: None, limit: None, alone: false }
    }

    pub fn times(mut self, times: f64) -> Self {
        self.times = Some(times);
        self
    }

    pub fn limit(mut self, limit: f64) -> Self {
        self.limit = Some(limit);
        self
    }

    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// How many times better ours is.
    pub fn ratio(&self, ours: f64, peer: f64) -> f64 {
        match self.better {
            Better::Higher => ours / peer,
            Better::Lower => peer / ours,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_one_is_ours_being_better_either_way() {
        assert_eq!(Figure::higher("a", "", "1/s").ratio(20.0, 10.0), 2.0);
        assert_eq!(Figure::lower("a", "", "ms").ratio(5.0, 10.0), 2.0);
    }
}
