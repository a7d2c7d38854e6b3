//! `tidy.toml`: what may still pass. A list that only shrinks, because an entry that asks for more than it needs fails.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// Besides tables.
const ENTRIES_MAX: usize = 5;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exceptions {
    #[serde(default)]
    table: Vec<Table>,
    #[serde(default)]
    file: Vec<Entry>,
    #[serde(default)]
    function: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    path: String,
    /// For the reader.
    #[allow(dead_code)]
    reason: String,
    #[serde(skip)]
    used: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    path: String,
    #[serde(default)]
    name: String,
    lines: usize,
    /// What the file or function really has.
    #[serde(skip)]
    actual: Option<usize>,
}

impl Exceptions {
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("understanding {}", path.display()))
    }

    pub fn is_table(&mut self, path: &str) -> bool {
        let Some(table) = self.table.iter_mut().find(|table| table.path == path) else { return false };
        table.used = true;
        true
    }

    pub fn allows_file(&mut self, path: &str, lines: usize) -> bool {
        allows(&mut self.file, path, "", lines)
    }

    pub fn allows_function(&mut self, path: &str, name: &str, lines: usize) -> bool {
        allows(&mut self.function, path, name, lines)
    }

    /// Entries that ask for more than is needed, and too many entries.
    pub fn not_needed(&self) -> Vec<String> {
        let mut found = Vec::new();
        for table in self.table.iter().filter(|table| !table.used) {
            found.push(format!("xtask/tidy.toml: there is no {}: remove its entry", table.path));
        }
        for entry in self.file.iter().chain(&self.function) {
            let what = format!("{} {}", entry.path, entry.name);
            match entry.actual {
                None => found.push(format!("xtask/tidy.toml: {} needs no exception any more", what.trim())),
                Some(actual) if actual < entry.lines => {
                    found.push(format!(
                        "xtask/tidy.toml: {} has shrunk to {actual} lines: lower its entry",
                        what.trim()
                    ));
                }
                Some(_) => {}
            }
        }
        let entries = self.file.len() + self.function.len();
        if entries > ENTRIES_MAX {
            found.push(format!("xtask/tidy.toml: {entries} exceptions; {ENTRIES_MAX} is the limit"));
        }
        found
    }
}

fn allows(entries: &mut [Entry], path: &str, name: &str, lines: usize) -> bool {
    let Some(entry) = entries.iter_mut().find(|entry| entry.path == path && entry.name == name) else { return false };
    entry.actual = Some(lines.max(entry.actual.unwrap_or(0)));
    lines <= entry.lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Exceptions {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_listed_file_may_shrink_but_not_grow() {
        let text = "[[file]]\npath = 'a.rs'\nlines = 1100\n";
        let mut listed = with(text);
        assert!(!listed.allows_file("a.rs", 1101));
        let mut listed_exactly = with(text);
        assert!(listed_exactly.allows_file("a.rs", 1100));
        assert_eq!(listed_exactly.not_needed(), Vec::<String>::new());
        let mut shrunk = with(text);
        assert!(shrunk.allows_file("a.rs", 1050));
        assert_eq!(shrunk.not_needed(), ["xtask/tidy.toml: a.rs has shrunk to 1050 lines: lower its entry"]);
    }

    #[test]
    fn entries_that_nothing_needs_are_told() {
        let listed =
            with("[[function]]\npath = 'a.rs'\nname = 'f'\nlines = 90\n[[table]]\npath = 'b.rs'\nreason = 'x'\n");
        assert_eq!(listed.not_needed().len(), 2);
    }

    #[test]
    fn six_exceptions_are_one_too_many() {
        let mut listed = with(&"[[file]]\npath = 'a.rs'\nlines = 1100\n".repeat(6));
        for entry in &mut listed.file {
            entry.actual = Some(1100);
        }
        assert_eq!(listed.not_needed(), ["xtask/tidy.toml: 6 exceptions; 5 is the limit"]);
    }
}
