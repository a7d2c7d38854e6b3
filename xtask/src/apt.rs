//! Fetching Debian packages and sources through apt itself, without touching the machine's own package state.
//!
//! apt is given a list of sources of its own (the machine's Debian ones, with `deb-src` added), and keeps its lists and
//! downloads in our cache. So this works without root, and signatures are checked as always.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// apt with its state under our cache.
pub struct Apt {
    state: PathBuf,
}

impl Apt {
    /// Prepares the state and refreshes the package lists once per cache.
    pub fn at(cache: &Path) -> Result<Self> {
        let apt = Self { state: cache.join("apt") };
        for dir in ["lists/partial", "cache/archives/partial", "packages"] {
            fs::create_dir_all(apt.state.join(dir)).context("making apt's state folders")?;
        }
        let sources = debian_sources(Path::new("/etc/apt"))?;
        fs::write(apt.state.join("debian.sources"), sources).context("writing apt's sources")?;
        if !apt.state.join("updated").exists() {
            apt.update()?;
        }
        Ok(apt)
    }

    /// The package files of `names`, fetched where the cache lacks them.
    pub fn packages(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let dir = self.state.join("packages");
        let missing: Vec<&str> = names.iter().copied().filter(|name| find_package(&dir, name).is_none()).collect();
        if !missing.is_empty() {
            self.fetch(&dir, "download", &missing)?;
        }
        let find = |name: &&str| find_package(&dir, name).with_context(|| format!("apt did not deliver {name}"));
        names.iter().map(find).collect()
    }

    /// The upstream source tree of `package`, without Debian's patches, inside `dir`.
    pub fn source(&self, package: &str, dir: &Path) -> Result<PathBuf> {
        self.fetch(dir, "source", &["--download-only", package])?;
        let mut files = fs::read_dir(dir)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        let control = files.find(|path| path.extension().is_some_and(|extension| extension == "dsc"));
        let control = control.with_context(|| format!("apt-get source {package} left no .dsc file"))?;
        let tree = dir.join("tree");
        let mut unpack = Command::new("dpkg-source");
        process::quiet(unpack.current_dir(dir).args(["--skip-patches", "--extract"]).arg(control).arg(&tree))?;
        Ok(tree)
    }

    /// The packages that `name` depends on directly.
    pub fn dependencies(&self, name: &str) -> Result<Vec<String>> {
        let listed = process::output(self.command_of("apt-cache").args(["depends", "--important", name]))?;
        Ok(listed.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned).collect())
    }

    /// Fetches; when the lists have gone stale (a package was superseded), refreshes them and tries once more.
    fn fetch(&self, dir: &Path, verb: &str, names: &[&str]) -> Result<()> {
        let attempt = || process::quiet(self.command().current_dir(dir).arg(verb).args(names));
        if attempt().is_ok() {
            return Ok(());
        }
        self.update()?;
        attempt()
    }

    fn update(&self) -> Result<()> {
        process::quiet(self.command().arg("update")).context("refreshing the Debian package lists")?;
        fs::write(self.state.join("updated"), "").context("noting that the package lists are there")
    }

    fn command(&self) -> Command {
        let mut command = self.command_of("apt-get");
        command.args(["--quiet", "--assume-yes"]);
        command
    }

    fn command_of(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let state = self.state.display();
        command.args(["-o", "Dir::Etc::sourceparts=-", "-o", "APT::Sandbox::User=root"]);
        for setting in [
            format!("Dir::Etc::sourcelist={state}/debian.sources"),
            format!("Dir::State::lists={state}/lists"),
            format!("Dir::Cache={state}/cache"),
        ] {
            command.arg("-o").arg(setting);
        }
        command
    }
}

fn find_package(dir: &Path, name: &str) -> Option<PathBuf> {
    let prefix = format!("{name}_");
    let entries = fs::read_dir(dir).ok()?.filter_map(Result::ok);
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    found.sort();
    found.pop()
}

/// The machine's Debian sources as one deb822 text that offers binaries and sources.
fn debian_sources(etc_apt: &Path) -> Result<String> {
    let mut text = String::new();
    let mut files = vec![etc_apt.join("sources.list")];
    if let Ok(parts) = fs::read_dir(etc_apt.join("sources.list.d")) {
        files.extend(parts.filter_map(|part| part.ok().map(|part| part.path())));
    }
    files.sort();
    for file in files {
        let Ok(content) = fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => text.push_str(&from_stanzas(&content)),
            Some("list") => text.push_str(&from_lines(&content)),
            _ => {}
        }
    }
    if text.is_empty() {
        bail!("no Debian package source under {}: images are made from Debian packages", etc_apt.display());
    }
    Ok(text)
}

/// deb822 stanzas whose archive is Debian's, asking for sources too.
fn from_stanzas(content: &str) -> String {
    let mut text = String::new();
    for stanza in content.split("\n\n").filter(|stanza| field(stanza, "URIs").is_some_and(is_debian)) {
        for line in stanza.lines().filter(|line| !line.starts_with('#')) {
            text.push_str(if line.starts_with("Types:") { "Types: deb deb-src" } else { line });
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn is_debian(uri: &str) -> bool {
    uri.contains("/debian")
}

/// One-line entries (`deb [signed-by=K] URI SUITE COMPONENT...`) of Debian's archive, as stanzas.
fn from_lines(content: &str) -> String {
    let mut text = String::new();
    for line in content.lines().filter_map(|line| line.trim().strip_prefix("deb ")) {
        let (options, rest) = match line.trim().strip_prefix('[').and_then(|line| line.split_once(']')) {
            Some((options, rest)) => (options, rest),
            None => ("", line),
        };
        let mut words = rest.split_whitespace();
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else { continue };
        if !is_debian(uri) {
            continue;
        }
        let components = words.collect::<Vec<_>>().join(" ");
        text.push_str(&format!("Types: deb deb-src\nURIs: {uri}\nSuites: {suite}\nComponents: {components}\n"));
        if let Some(key) = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by=")) {
            text.push_str(&format!("Signed-By: {key}\n"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_asked_for_from_debian_archives_only() {
        let content = "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm\nComponents: main\n\n\
                       Types: deb\nURIs: https://deb.example.org/node\nSuites: x\nComponents: main\n";
        assert_eq!(
            from_stanzas(content),
            "Types: deb deb-src\nURIs: http://deb.debian.org/debian\nSuites: bookworm\nComponents: main\n\n"
        );
    }

    #[test]
    fn one_line_entries_become_stanzas_and_keep_their_key() {
        let content = "# deb http://x/debian a main\ndeb [arch=amd64 signed-by=/k.gpg] http://x/debian bookworm main contrib\n\
                       deb http://y/other z main\n";
        assert_eq!(
            from_lines(content),
            "Types: deb deb-src\nURIs: http://x/debian\nSuites: bookworm\nComponents: main contrib\nSigned-By: /k.gpg\n\n"
        );
    }

    #[test]
    fn a_package_is_found_by_its_whole_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("redis-server_7_amd64.deb"), "").unwrap();
        assert!(find_package(dir.path(), "redis").is_none());
        assert!(find_package(dir.path(), "redis-server").is_some());
    }
}
