//! A layer's tar stream unpacked into a folder that overlay can use, whatever the stream's author had in mind.
//!
//! Safety: every path is looked up by the kernel inside the layer's folder (`RESOLVE_IN_ROOT`), never by joining strings, so
//! absolute links and `..` stay inside; names with `..` are refused. Nothing is opened through a link in its last part.
//! Device nodes are made but never opened (containers' roots are mounted without devices). Bytes and entries are limited.
//!
//! Meaning: `.wh.x` becomes overlay's whiteout, `.wh..wh..opq` its opaque mark. What a layer leaves out (a folder above its files,
//! the target of a hard link) is looked up in the layers below, as if they were merged.

use std::{
    cell::Cell,
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
    rc::Rc,
};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use tar::{Archive, Entry, EntryType};

/// What a layer may grow to.
#[derive(Clone, Copy, Debug)]
pub struct UnpackLimits {
    /// All files' contents, in bytes.
    pub content_bytes_max: u64,
    /// Files, folders and links.
    pub entries_max: u64,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        UnpackLimits { content_bytes_max: 64 << 30, entries_max: 4_000_000 }
    }
}

/// Why a layer was refused.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// A name leads out of the layer or is not one.
    #[error("entry {0:?} has an illegal name")]
    Name(PathBuf),
    /// A link's target does not exist where links may lead.
    #[error("hard link {link:?} to {target:?}, which does not exist")]
    Link {
        /// The link.
        link: PathBuf,
        /// Where it should lead.
        target: PathBuf,
    },
    /// More than the limits allow.
    #[error("layer is larger than {0} bytes")]
    TooLarge(u64),
    /// More entries than the limits allow.
    #[error("layer has more than {0} entries")]
    TooMany(u64),
    /// The stream or the disk failed.
    #[error("{path:?}: {source}")]
    Io {
        /// The entry, or empty between entries.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

/// What a layer has grown to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// All files' contents, in bytes.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}

/// How much of the stream may pass before an entry's content: names and attributes, which are held in memory.
const HEADER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Lets only so much of a stream through before it is asked again.
struct Metered<R> {
    stream: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            return Err(io::Error::other("an entry's header is too long"));
        }
        let most = usize::try_from(self.left.get()).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.stream.read(&mut buffer[..most])?;
        self.left.set(self.left.get() - length as u64);
        Ok(length)
    }
}

/// Unpacks `tar` (uncompressed) into the empty folder `into`. `below` are the unpacked layers below, nearest first. Blocking.
pub fn unpack(tar: impl Read, into: &Path, below: &[PathBuf], limits: UnpackLimits) -> Result<Unpacked, UnpackError> {
    let open = |path: &PathBuf| {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| UnpackError::Io { path: path.clone(), source: error.into() })
    };
    let root = open(&into.to_owned())?;
    let below = below.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let mut layer = Layer { root, below, limits, bytes: 0, folder_times: BTreeMap::new() };
    let between = |source: io::Error| UnpackError::Io { path: PathBuf::new(), source };
    let left = Rc::new(Cell::new(HEADER_BYTES_MAX));
    let mut archive = Archive::new(Metered { stream: tar, left: left.clone() });
    let mut count = 0;
    for entry in archive.entries().map_err(between)? {
        if count >= limits.entries_max {
            return Err(UnpackError::TooMany(limits.entries_max));
        }
        count += 1;
        // Contents are limited where they are copied.
        left.set(u64::MAX);
        layer.add(entry.map_err(between)?)?;
        left.set(HEADER_BYTES_MAX);
    }
    layer.set_folder_times()?;
    Ok(Unpacked { bytes: layer.bytes, entries: count })
}

struct Layer {
    root: OwnedFd,
    below: Vec<OwnedFd>,
    limits: UnpackLimits,
    bytes: u64,
    /// Set last, as making files in a folder changes them.
    folder_times: BTreeMap<PathBuf, i64>,
}

/// What is common to all kinds of entry.
struct Attributes {
    uid: u32,
    gid: u32,
    mode: u32,
    modified_s: i64,
    extended: Vec<(String, Vec<u8>)>,
}

/// How many links in a row are followed in layers below.
const LINKS_MAX: usize = 40;

/// Looks `path` up inside `root`, following links in its last part only when `follow`.
fn look(root: BorrowedFd<'_>, path: &Path, follow: bool) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::PATH | OFlags::CLOEXEC | if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

impl Layer {
    fn add(&mut self, mut entry: Entry<'_, impl Read>) -> Result<(), UnpackError> {
        let raw = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        let path = clean(&raw).ok_or_else(|| UnpackError::Name(raw.clone()))?;
        let at = |source: io::Error| UnpackError::Io { path: raw.clone(), source };
        let attributes = attributes(&mut entry).map_err(at)?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            // The root itself: only its attributes count.
            return self.finish(self.root.as_fd(), &attributes).map_err(at);
        };
        let parent_path = path.parent().unwrap_or(Path::new("")).to_owned();
        let parent = self.parent(&parent_path, LINKS_MAX).map_err(at)?;
        if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
            return self.whiteout(parent.as_fd(), hidden, &raw);
        }
        let kind = entry.header().entry_type();
        if kind != EntryType::Directory {
            self.clear(parent.as_fd(), &name).map_err(at)?;
        }
        match kind {
            EntryType::Directory => self.folder(parent.as_fd(), &name, &path, &attributes).map_err(at),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(parent.as_fd(), &name, &mut entry, &attributes, &raw)
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                self.symlink(parent.as_fd(), &name, &target, &attributes).map_err(at)
            }
            EntryType::Link => {
                let target = PathBuf::from(OsStr::from_bytes(&entry.link_name_bytes().unwrap_or_default()));
                self.link(parent.as_fd(), &name, &target, &raw)
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let device = device_number(entry.header(), kind).map_err(at)?;
                self.node(parent.as_fd(), &name, kind, device, &attributes).map_err(at)
            }
            // Global headers and kinds nobody knows say nothing about a file.
            _ => Ok(()),
        }
    }

    /// The folder at `path`, made when missing the way it is in a layer below.
    fn parent(&self, path: &Path, links_left: usize) -> io::Result<OwnedFd> {
        match look(self.root.as_fd(), path, true) {
            Ok(found) if kind(&rustix::fs::fstat(&found)?) == FileType::Directory => return Ok(found),
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let Some(name) = path.file_name() else { return Err(io::ErrorKind::NotFound.into()) };
        let above = path.parent().unwrap_or(Path::new(""));
        let parent = self.parent(above, links_left)?;
        let model = self.below.iter().find_map(|layer| look(layer.as_fd(), path, false).ok());
        let stat = model.as_ref().map(rustix::fs::fstat).transpose()?;
        match (&model, stat) {
            (Some(model), Some(stat)) if kind(&stat) == FileType::Symlink && links_left > 0 => {
                let target = rustix::fs::readlinkat(model, "", Vec::new())?;
                let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                let target = if target.is_absolute() { target.to_owned() } else { above.join(target) };
                let target = resolve_dots(&target);
                self.parent(&target, links_left - 1)
            }
            (_, stat) => {
                let stat = stat.filter(|stat| kind(stat) == FileType::Directory);
                rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                let made = look(parent.as_fd(), Path::new(name), false)?;
                if let Some(stat) = stat {
                    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
                    rustix::fs::chownat(&made, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
                    chmod(made.as_fd(), stat.st_mode & 0o7777)?;
                }
                Ok(made)
            }
        }
    }

    /// Removes what this layer has put at `name` before.
    fn clear(&self, parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(rustix::io::Errno::ISDIR) => remove_tree(parent, name),
            Err(error) => Err(error.into()),
        }
    }

    fn whiteout(&self, parent: BorrowedFd<'_>, hidden: &[u8], raw: &Path) -> Result<(), UnpackError> {
        let at = |source: io::Error| UnpackError::Io { path: raw.to_owned(), source };
        if hidden == b".wh..opq" {
            return set_attribute(parent, "trusted.overlay.opaque", b"y").map_err(at);
        }
        if hidden.starts_with(b".wh.") {
            // Bookkeeping of a file system nobody uses any more.
            return Ok(());
        }
        let name = OsStr::from_bytes(hidden);
        if name.is_empty() || name == "." || name == ".." {
            return Err(UnpackError::Name(raw.to_owned()));
        }
        self.clear(parent, name).map_err(at)?;
        rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0).map_err(|error| at(error.into()))
    }

    fn folder(&mut self, parent: BorrowedFd<'_>, name: &OsStr, path: &Path, attributes: &Attributes) -> io::Result<()> {
        let found = look(parent, Path::new(name), false).ok();
        let is_folder = match &found {
            Some(found) => kind(&rustix::fs::fstat(found)?) == FileType::Directory,
            None => false,
        };
        if !is_folder {
            self.clear(parent, name)?;
            rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
        }
        let made = look(parent, Path::new(name), false)?;
        self.folder_times.insert(path.to_owned(), attributes.modified_s);
        self.finish(made.as_fd(), attributes)
    }

    fn file(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        entry: &mut Entry<'_, impl Read>,
        attributes: &Attributes,
        raw: &Path,
    ) -> Result<(), UnpackError> {
        let at = |source: io::Error| UnpackError::Io { path: raw.to_owned(), source };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600)).map_err(|error| at(error.into()))?;
        let mut file = File::from(file);
        let left = self.limits.content_bytes_max.saturating_sub(self.bytes);
        let copied = copy(&mut entry.take(left.saturating_add(1)), &mut file).map_err(at)?;
        if copied > left {
            return Err(UnpackError::TooLarge(self.limits.content_bytes_max));
        }
        self.bytes += copied;
        self.finish(file.as_fd(), attributes).map_err(at)?;
        set_times(file.as_fd(), attributes.modified_s).map_err(at)
    }

    fn symlink(&self, parent: BorrowedFd<'_>, name: &OsStr, target: &[u8], attributes: &Attributes) -> io::Result<()> {
        rustix::fs::symlinkat(OsStr::from_bytes(target), parent, name)?;
        let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        let times = times(attributes.modified_s);
        Ok(rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn link(&mut self, parent: BorrowedFd<'_>, name: &OsStr, target: &Path, raw: &Path) -> Result<(), UnpackError> {
        let at = |error: rustix::io::Errno| UnpackError::Io { path: raw.to_owned(), source: error.into() };
        let missing = || UnpackError::Link { link: raw.to_owned(), target: target.to_owned() };
        let clean = clean(target).ok_or_else(|| UnpackError::Name(target.to_owned()))?;
        let target_name = clean.file_name().ok_or_else(missing)?;
        let folder = clean.parent().unwrap_or(Path::new(""));
        if let Ok(folder) = look(self.root.as_fd(), folder, true) {
            match rustix::fs::linkat(folder, target_name, parent, name, AtFlags::empty()) {
                Err(rustix::io::Errno::NOENT) => {}
                other => return other.map_err(at),
            }
        }
        let found = self.below.iter().find_map(|layer| look(layer.as_fd(), &clean, false).ok()).ok_or_else(missing)?;
        self.copy_from_below(parent, name, found.as_fd())
            .map_err(|source| UnpackError::Io { path: raw.to_owned(), source })
    }

    /// A link across layers cannot be a link; overlay would copy the file as well.
    fn copy_from_below(&mut self, parent: BorrowedFd<'_>, name: &OsStr, found: BorrowedFd<'_>) -> io::Result<()> {
        let stat = rustix::fs::fstat(found)?;
        if kind(&stat) != FileType::RegularFile {
            return Err(io::Error::other("hard link to what is not a file"));
        }
        let mut from = File::from(reopen(found, OFlags::RDONLY)?);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut to = File::from(rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?);
        self.bytes += copy(&mut from, &mut to)?;
        if self.bytes > self.limits.content_bytes_max {
            return Err(io::Error::other("layer is too large"));
        }
        rustix::fs::fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        set_times(to.as_fd(), stat.st_mtime)
    }

    fn node(
        &self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        kind: EntryType,
        device: u64,
        attributes: &Attributes,
    ) -> io::Result<()> {
        let kind = match kind {
            EntryType::Char => FileType::CharacterDevice,
            EntryType::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        if kind == FileType::CharacterDevice && device == 0 {
            return Err(io::Error::other("a device numbered 0:0 would hide files of other layers"));
        }
        rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(attributes.mode & 0o777), device)?;
        let made = look(parent, Path::new(name), false)?;
        self.finish(made.as_fd(), attributes)
    }

    /// Owner, then mode (changing owners drops the set-id bits), then extended attributes.
    fn finish(&self, fd: BorrowedFd<'_>, attributes: &Attributes) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        rustix::fs::chownat(fd, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        chmod(fd, attributes.mode & 0o7777)?;
        for (name, value) in &attributes.extended {
            match set_attribute(fd, name, value) {
                // A file system that cannot keep them is no reason not to run the image.
                Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn set_folder_times(&self) -> Result<(), UnpackError> {
        for (path, modified_s) in &self.folder_times {
            let at = |source: io::Error| UnpackError::Io { path: path.clone(), source };
            // It may have been replaced by something else since.
            let Ok(folder) = look(self.root.as_fd(), path, false) else { continue };
            let stat = rustix::fs::fstat(&folder).map_err(|error| at(error.into()))?;
            if kind(&stat) == FileType::Directory {
                let folder = reopen(folder.as_fd(), OFlags::RDONLY | OFlags::DIRECTORY).map_err(at)?;
                set_times(folder.as_fd(), *modified_s).map_err(at)?;
            }
        }
        Ok(())
    }
}

/// The path relative to the root; `None` when it has `..` in it.
fn clean(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

/// The target of a link in a layer below, which may climb, but not above the root.
fn resolve_dots(path: &Path) -> PathBuf {
    let mut resolved = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => resolved.push(name),
            Component::ParentDir => {
                resolved.pop();
            }
            _ => {}
        }
    }
    resolved
}

/// Pipes have no number, and writers leave its fields empty.
fn device_number(header: &tar::Header, kind: EntryType) -> io::Result<u64> {
    if kind == EntryType::Fifo {
        return Ok(0);
    }
    Ok(rustix::fs::makedev(header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0)))
}

fn attributes(entry: &mut Entry<'_, impl Read>) -> io::Result<Attributes> {
    let header = entry.header();
    let narrow = |number: u64| u32::try_from(number).map_err(|_| io::Error::other("owner is out of range"));
    let mut attributes = Attributes {
        uid: narrow(header.uid()?)?,
        gid: narrow(header.gid()?)?,
        mode: header.mode()?,
        modified_s: header.mtime()? as i64,
        extended: Vec::new(),
    };
    let Some(extensions) = entry.pax_extensions()? else { return Ok(attributes) };
    for extension in extensions {
        let extension = extension?;
        let Ok(key) = extension.key() else { continue };
        let number = || extension.value().ok().and_then(|value| value.split('.').next()?.parse::<i64>().ok());
        match key {
            "uid" => attributes.uid = number().and_then(|number| number.try_into().ok()).unwrap_or(attributes.uid),
            "gid" => attributes.gid = number().and_then(|number| number.try_into().ok()).unwrap_or(attributes.gid),
            "mtime" => attributes.modified_s = number().unwrap_or(attributes.modified_s),
            _ => {
                let name = key.strip_prefix("SCHILY.xattr.").filter(|name| allowed(name));
                attributes.extended.extend(name.map(|name| (name.to_owned(), extension.value_bytes().to_vec())));
            }
        }
    }
    Ok(attributes)
}

/// Attributes an image may set. Overlay's own would let it redirect lookups; labels are the host's.
fn allowed(name: &str) -> bool {
    name == "security.capability" || name.starts_with("user.") || name.starts_with("system.posix_acl_")
}

fn copy(from: &mut impl Read, to: &mut File) -> io::Result<u64> {
    let mut buffer = vec![0; 128 * 1024];
    let mut total = 0;
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok(total);
        }
        to.write_all(&buffer[..length])?;
        total += length as u64;
    }
}

fn times(modified_s: i64) -> Timestamps {
    let time = Timespec { tv_sec: modified_s, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

fn set_times(fd: BorrowedFd<'_>, modified_s: i64) -> io::Result<()> {
    Ok(rustix::fs::futimens(fd, &times(modified_s))?)
}

/// The same file with other rights, by its descriptor.
fn reopen(fd: BorrowedFd<'_>, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(by_descriptor(fd), flags | OFlags::CLOEXEC, Mode::empty())?)
}

fn by_descriptor(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn chmod(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::chmod(by_descriptor(fd), Mode::from_raw_mode(mode))?)
}

fn set_attribute(fd: BorrowedFd<'_>, name: &str, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::setxattr(by_descriptor(fd), name, value, XattrFlags::empty())?)
}

/// Removes a folder and all in it, following no links.
fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&folder)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
            Err(rustix::io::Errno::ISDIR) => remove_tree(folder.as_fd(), name)?,
            other => other?,
        }
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests;
