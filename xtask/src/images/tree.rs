//! The files of one layer, in memory: built from packages and from texts of our own, written as a reproducible tar.
//!
//! Entries are ordered by path, so parents come before children; hard links come last, so their targets exist. Times are
//! zero, so the same input gives the same digest. Debian's merged `/usr` is applied on the way in (`bin/sh` lands in
//! `usr/bin/sh`), so packages and links never fight over a folder.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use tar::{Archive, Builder, EntryType, Header};

/// Documentation and translations: half of a package, and nothing a test image needs.
const LEFT_OUT: [&str; 7] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/bash-completion",
    "usr/share/bug",
];
const MERGED_INTO_USR: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Dir,
    File(Vec<u8>),
    Symlink(String),
    Hardlink(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    content: Content,
    mode: u32,
    uid: u64,
    gid: u64,
}

/// A file system tree; paths are relative, without a leading slash.
#[derive(Debug, Default)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

impl Tree {
    pub fn dir(&mut self, path: &str, mode: u32) -> &mut Self {
        self.insert(path, Content::Dir, mode)
    }

    pub fn file(&mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> &mut Self {
        self.insert(path, Content::File(bytes.into()), mode)
    }

    pub fn symlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.insert(path, Content::Symlink(target.to_owned()), 0o777)
    }

    pub fn hardlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.insert(path, Content::Hardlink(target.to_owned()), 0o755)
    }

    /// Gives an entry to another user; one that is not there is left alone.
    pub fn owned_by(&mut self, path: &str, uid: u64, gid: u64) -> &mut Self {
        if let Some(entry) = self.entries.get_mut(path) {
            (entry.uid, entry.gid) = (uid, gid);
        }
        self
    }

    /// The bytes of a file that is already in the tree.
    pub fn read(&self, path: &str) -> Option<&[u8]> {
        match &self.entries.get(path)?.content {
            Content::File(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The four links of a merged `/usr`.
    pub fn merged_usr(&mut self) -> &mut Self {
        for name in MERGED_INTO_USR {
            self.dir(&format!("usr/{name}"), 0o755).symlink(name, &format!("usr/{name}"));
        }
        self
    }

    /// Adds the files of a Debian package as it would install them, without running its scripts.
    pub fn add_package(&mut self, package: &Path) -> Result<()> {
        let mut child = Command::new("dpkg-deb")
            .arg("--fsys-tarfile")
            .arg(package)
            .stdout(Stdio::piped())
            .spawn()
            .context("starting dpkg-deb")?;
        let stream = child.stdout.take().context("dpkg-deb has no output")?;
        self.add_archive(stream).with_context(|| format!("reading {}", package.display()))?;
        if !child.wait().context("waiting for dpkg-deb")?.success() {
            bail!("dpkg-deb could not read {}", package.display());
        }
        Ok(())
    }

    fn add_archive(&mut self, stream: impl Read) -> Result<()> {
        let mut archive = Archive::new(stream);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let Some(path) = placed(&entry.path()?.to_string_lossy()) else { continue };
            let header = entry.header();
            let (mode, uid, gid) = (header.mode()? & 0o7777, header.uid()?, header.gid()?);
            let link = entry.link_name()?.map(|link| link.to_string_lossy().into_owned());
            let content = match (header.entry_type(), link) {
                (EntryType::Directory, _) => Content::Dir,
                (EntryType::Symlink, Some(target)) => Content::Symlink(target),
                (EntryType::Link, Some(target)) => Content::Hardlink(placed(&target).unwrap_or(target)),
                (EntryType::Regular | EntryType::Continuous, _) => {
                    let mut bytes = Vec::new();
                    entry.read_to_end(&mut bytes)?;
                    Content::File(bytes)
                }
                (other, _) => bail!("{path}: entries of type {other:?} are not expected in a package"),
            };
            self.insert(&path, content, mode).owned_by(&path, uid, gid);
        }
        Ok(())
    }

    fn insert(&mut self, path: &str, content: Content, mode: u32) -> &mut Self {
        for (index, _) in path.match_indices('/') {
            let parent = &path[..index];
            let made = Entry { content: Content::Dir, mode: 0o755, uid: 0, gid: 0 };
            self.entries.entry(parent.to_owned()).or_insert(made);
        }
        self.entries.insert(path.to_owned(), Entry { content, mode, uid: 0, gid: 0 });
        self
    }

    /// Writes the tree as a tar stream.
    pub fn write_tar(&self, out: impl Write) -> Result<()> {
        let mut builder = Builder::new(out);
        let is_link = |entry: &Entry| matches!(entry.content, Content::Hardlink(_));
        let (links, rest): (Vec<_>, Vec<_>) = self.entries.iter().partition(|(_, entry)| is_link(entry));
        for (path, entry) in rest.into_iter().chain(links) {
            append(&mut builder, path, entry).with_context(|| format!("writing {path}"))?;
        }
        builder.into_inner()?.flush().context("ending the archive")
    }
}

fn append(builder: &mut Builder<impl Write>, path: &str, entry: &Entry) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_uid(entry.uid);
    header.set_gid(entry.gid);
    header.set_mtime(0);
    header.set_size(0);
    match &entry.content {
        Content::Dir => {
            header.set_entry_type(EntryType::Directory);
            builder.append_data(&mut header, format!("{path}/"), std::io::empty())?;
        }
        Content::File(bytes) => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, path, bytes.as_slice())?;
        }
        Content::Symlink(target) => {
            header.set_entry_type(EntryType::Symlink);
            builder.append_link(&mut header, path, target)?;
        }
        Content::Hardlink(target) => {
            header.set_entry_type(EntryType::Link);
            builder.append_link(&mut header, path, target)?;
        }
    }
    Ok(())
}

/// Where a package's path lands in a merged-`/usr` image, or nothing if it is left out.
fn placed(path: &str) -> Option<String> {
    let path = path.trim_start_matches("./").trim_matches('/');
    let first = path.split('/').next().unwrap_or_default();
    let path = if MERGED_INTO_USR.contains(&first) { format!("usr/{path}") } else { path.to_owned() };
    let left_out =
        LEFT_OUT.iter().any(|dir| path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    (!path.is_empty() && path != "." && !left_out).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(tree: &Tree) -> Vec<String> {
        let mut bytes = Vec::new();
        tree.write_tar(&mut bytes).unwrap();
        let mut archive = Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap();
        entries.map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn package_paths_land_in_the_merged_usr() {
        assert_eq!(placed("./bin/dash").as_deref(), Some("usr/bin/dash"));
        assert_eq!(placed("./lib64/ld.so").as_deref(), Some("usr/lib64/ld.so"));
        assert_eq!(placed("./libexec/x").as_deref(), Some("libexec/x"));
        assert_eq!(placed("./usr/share/doc/x"), None);
        assert_eq!(placed("./usr/share/docs").as_deref(), Some("usr/share/docs"));
        assert_eq!(placed("./"), None);
    }

    #[test]
    fn parents_come_first_and_hard_links_last() {
        let mut tree = Tree::default();
        tree.hardlink("bin/ash", "bin/busybox").file("bin/busybox", 0o755, "x").file("etc/passwd", 0o644, "");
        assert_eq!(listing(&tree), ["bin/", "bin/busybox", "etc/", "etc/passwd", "bin/ash"]);
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes() {
        let write = || {
            let mut bytes = Vec::new();
            Tree::default().merged_usr().file("a", 0o4755, "1").owned_by("a", 7, 8).write_tar(&mut bytes).unwrap();
            bytes
        };
        assert_eq!(write(), write());
    }

    #[test]
    fn owners_and_modes_survive_a_round_trip() {
        let mut first = Tree::default();
        first.dir("tmp", 0o1777).file("usr/bin/su", 0o4755, "x").owned_by("tmp", 3, 4);
        let mut bytes = Vec::new();
        first.write_tar(&mut bytes).unwrap();
        let mut second = Tree::default();
        second.add_archive(bytes.as_slice()).unwrap();
        assert_eq!(first.entries, second.entries);
    }
}
