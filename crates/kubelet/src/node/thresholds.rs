//! At which shortage a node says that it is under pressure: `memory.available<100Mi,nodefs.available<10%`, as `--eviction-hard`
//! of upstream's node agent. Giving a list replaces the whole default; what it does not name is never short.

use std::str::FromStr;

use meta::Quantity;

/// Upstream's default, and a last reserve of process ids.
pub const DEFAULT: &str = "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,pid.available<1%";

/// What has to be there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Least {
    #[default]
    Nothing,
    /// Bytes, inodes or process ids.
    Amount(u64),
    /// Of all there is.
    Percent(f64),
}

impl Least {
    /// Whether `free` of `all` is too little. What nobody can tell (`all` is 0) is not short.
    pub fn is_missed(self, free: u64, all: u64) -> bool {
        all > 0
            && match self {
                Least::Nothing => false,
                Least::Amount(least) => free < least,
                Least::Percent(percent) => (free as f64) * 100.0 < (all as f64) * percent,
            }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds {
    pub memory: Least,
    pub disk: Least,
    pub inodes: Least,
    pub pids: Least,
}

/// Why a list of thresholds was refused.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ThresholdError {
    #[error("{0:?} is no threshold: write SIGNAL<AMOUNT, such as nodefs.available<10% or memory.available<100Mi")]
    Form(String),
    #[error("{0:?} is no signal: there are memory.available, nodefs.available, nodefs.inodesFree and pid.available")]
    Signal(String),
    #[error("{0:?} is no amount: give a percentage such as 10% or a quantity such as 1Gi")]
    Amount(String),
}

impl FromStr for Thresholds {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, ThresholdError> {
        let nothing = Least::Nothing;
        let mut thresholds = Thresholds { memory: nothing, disk: nothing, inodes: nothing, pids: nothing };
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (signal, amount) = part.split_once('<').ok_or_else(|| ThresholdError::Form(part.to_string()))?;
            let least = match signal {
                "memory.available" => &mut thresholds.memory,
                "nodefs.available" => &mut thresholds.disk,
                "nodefs.inodesFree" => &mut thresholds.inodes,
                "pid.available" => &mut thresholds.pids,
                other => return Err(ThresholdError::Signal(other.to_string())),
            };
            *least = parse_least(amount).ok_or_else(|| ThresholdError::Amount(amount.to_string()))?;
        }
        Ok(thresholds)
    }
}

fn parse_least(text: &str) -> Option<Least> {
    if let Some(number) = text.strip_suffix('%') {
        let percent = number.parse::<f64>().ok().filter(|percent| (0.0..=100.0).contains(percent))?;
        return Some(Least::Percent(percent));
    }
    let quantity: Quantity = text.parse().ok()?;
    u64::try_from(quantity.units()).ok().map(Least::Amount)
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds {
            memory: Least::Amount(100 << 20),
            disk: Least::Percent(10.0),
            inodes: Least::Percent(5.0),
            pids: Least::Percent(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_what_its_text_says() {
        assert_eq!(DEFAULT.parse(), Ok(Thresholds::default()));
    }

    #[test]
    fn a_list_replaces_the_default() {
        let thresholds: Thresholds = "nodefs.available<1.5%, memory.available<1Gi".parse().unwrap();
        assert_eq!(thresholds.disk, Least::Percent(1.5));
        assert_eq!(thresholds.memory, Least::Amount(1 << 30));
        assert_eq!((thresholds.inodes, thresholds.pids), (Least::Nothing, Least::Nothing));
        assert_eq!("".parse::<Thresholds>().unwrap().disk, Least::Nothing);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, said) in [
            ("nodefs.available", "\"nodefs.available\" is no threshold"),
            ("disk<10%", "\"disk\" is no signal"),
            ("nodefs.available<ten", "\"ten\" is no amount"),
            ("nodefs.available<101%", "\"101%\" is no amount"),
            ("memory.available<-1Mi", "\"-1Mi\" is no amount"),
        ] {
            let error = text.parse::<Thresholds>().unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }

    #[test]
    fn short_is_less_than_the_least() {
        assert!(Least::Percent(10.0).is_missed(9, 100) && !Least::Percent(10.0).is_missed(10, 100));
        assert!(Least::Amount(10).is_missed(9, 1000) && !Least::Amount(10).is_missed(10, 1000));
        assert!(!Least::Percent(10.0).is_missed(0, 0) && !Least::Nothing.is_missed(0, 100));
    }
}
