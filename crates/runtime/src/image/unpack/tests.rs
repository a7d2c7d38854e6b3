//! Layers good and hostile.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::*;

/// Writes headers as they are asked for, without the checks a well-meaning library makes.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, kind: EntryType, path: &str, link: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_mtime(1_000_000_000);
        header.set_uid(7);
        header.set_gid(8);
        if kind == EntryType::Char || kind == EntryType::Block {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, "", 0o644, content)
    }

    fn folder(self, path: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, path, "", mode, b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, 0o777, b"")
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, target, 0o644, b"")
    }

    fn attribute(self, name: &str, value: &str) -> Self {
        let body = format!(" SCHILY.xattr.{name}={value}\n");
        let length = (1..).find(|length: &usize| length.to_string().len() + body.len() == *length).unwrap();
        self.entry(EntryType::XHeader, "pax", "", 0o644, format!("{length}{body}").as_bytes())
    }

    fn unpack(&self, into: &Path, below: &[PathBuf]) -> Result<Unpacked, UnpackError> {
        let mut bytes = self.0.clone();
        bytes.resize(bytes.len() + 1024, 0);
        let limits = UnpackLimits { content_bytes_max: 1000, entries_max: 50 };
        unpack(bytes.as_slice(), into, below, limits)
    }
}

fn folders() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let top = tempfile::tempdir().unwrap();
    let (inside, outside) = (top.path().join("layer"), top.path().join("outside"));
    std::fs::create_dir(&inside).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "secret").unwrap();
    (top, inside, outside)
}

#[test]
fn keeps_contents_owners_modes_times_and_links() {
    let (_top, inside, _) = folders();
    Tar::default()
        .folder("bin/", 0o755)
        .entry(EntryType::Regular, "bin/su", "", 0o4755, b"program")
        .link("bin/su2", "bin/su")
        .symlink("sh", "/bin/su")
        .entry(EntryType::Fifo, "pipe", "", 0o600, b"")
        .entry(EntryType::Char, "null", "", 0o666, b"")
        .folder("tmp", 0o1777)
        .file("tmp/x", b"x")
        .unpack(&inside, &[])
        .unwrap();
    let su = inside.join("bin/su").metadata().unwrap();
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid(), su.mtime()), (0o4755, 7, 8, 1_000_000_000));
    assert_eq!(su.ino(), inside.join("bin/su2").metadata().unwrap().ino());
    assert_eq!(std::fs::read_link(inside.join("sh")).unwrap(), Path::new("/bin/su"));
    assert!(inside.join("pipe").metadata().unwrap().file_type().is_fifo());
    assert_eq!(inside.join("null").metadata().unwrap().rdev(), rustix::fs::makedev(1, 3));
    let tmp = inside.join("tmp").metadata().unwrap();
    assert_eq!((tmp.mode() & 0o7777, tmp.mtime()), (0o1777, 1_000_000_000));
}

#[test]
fn nothing_hostile_reaches_the_outside() {
    let outside_path = |outside: &Path| outside.display().to_string();
    type Attack = fn(Tar, &str) -> Tar;
    let attacks: [(&str, Attack); 12] = [
        ("dots", |tar, _| tar.file("../outside/new", b"x")),
        ("dots inside", |tar, _| tar.file("a/../../outside/new", b"x")),
        ("absolute name", |tar, out| tar.file(&format!("{out}/new"), b"x")),
        ("through an absolute link", |tar, out| tar.symlink("l", out).file("l/new", b"x")),
        ("through a climbing link", |tar, _| tar.symlink("l", "../outside").file("l/new", b"x")),
        ("through links in a row", |tar, out| tar.symlink("a", "b").symlink("b", out).file("a/new", b"x")),
        ("onto a link", |tar, out| tar.symlink("l", &format!("{out}/secret")).file("l", b"x")),
        ("hard link out", |tar, out| tar.link("l", &format!("{out}/secret")).file("l", b"x")),
        ("hard link with dots", |tar, _| tar.link("l", "../outside/secret").file("l", b"x")),
        ("hard link through a link", |tar, out| tar.symlink("d", out).link("l", "d/secret").file("l", b"x")),
        ("whiteout with dots", |tar, out| tar.symlink("d", out).file("d/.wh.secret", b"")),
        ("whiteout of the parent", |tar, _| tar.file(".wh...", b"")),
    ];
    for (name, attack) in attacks {
        let (_top, inside, outside) = folders();
        // Refused or kept inside: both are fine.
        let _ = attack(Tar::default(), &outside_path(&outside)).unpack(&inside, &[]);
        let left: Vec<_> = std::fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["secret"], "{name}");
        let secret = outside.join("secret");
        assert_eq!(std::fs::read(&secret).unwrap(), b"secret", "{name}");
        assert_eq!(secret.metadata().unwrap().nlink(), 1, "{name}");
    }
}

#[test]
fn refuses_what_is_over_the_limits() {
    let (_top, inside, _) = folders();
    let big = Tar::default().file("a", &[0; 600]).file("b", &[0; 600]);
    assert!(matches!(big.unpack(&inside, &[]), Err(UnpackError::TooLarge(1000))));
    let (_top, inside, _) = folders();
    let many = (0..60).fold(Tar::default(), |tar, number| tar.file(&format!("f{number}"), b""));
    assert!(matches!(many.unpack(&inside, &[]), Err(UnpackError::TooMany(50))));
    let (_top, inside, _) = folders();
    let zero = Tar::default().entry(EntryType::Char, "x", "", 0o666, b"");
    let mut bytes = zero.0.clone();
    bytes[329..345].copy_from_slice(b"0000000\x000000000\x00");
    let mut header = tar::Header::from_byte_slice(&bytes[..512]).clone();
    header.set_cksum();
    assert!(Tar(header.as_bytes().to_vec()).unpack(&inside, &[]).is_err());
    let (_top, inside, _) = folders();
    let long = vec![b'x'; 5 * 1024 * 1024];
    let bomb = Tar::default().entry(EntryType::GNULongName, "x", "", 0o644, &long).file("a", b"");
    let error = bomb.unpack(&inside, &[]).unwrap_err();
    assert!(error.to_string().contains("too long"), "{error}");
    assert!(Tar(b"not a tar at all".repeat(100)).unpack(&inside, &[]).is_err());
}

#[test]
fn whiteouts_become_overlays_own() {
    let (_top, inside, _) = folders();
    Tar::default().folder("d", 0o755).file("d/.wh.gone", b"").file("e/.wh..wh..opq", b"").unpack(&inside, &[]).unwrap();
    let gone = inside.join("d/gone").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut value = [0; 8];
    let length = rustix::fs::getxattr(inside.join("e"), "trusted.overlay.opaque", &mut value).unwrap();
    assert_eq!(&value[..length], b"y");
}

#[test]
fn keeps_harmless_attributes_and_drops_overlays() {
    let (_top, inside, _) = folders();
    Tar::default()
        .attribute("user.note", "hi")
        .file("a", b"")
        .attribute("trusted.overlay.redirect", "/etc")
        .folder("b", 0o755)
        .unpack(&inside, &[])
        .unwrap();
    let mut value = [0; 8];
    // Not every file system keeps user attributes; a temporary one in memory may not.
    if let Ok(length) = rustix::fs::getxattr(inside.join("a"), "user.note", &mut value) {
        assert_eq!(&value[..length], b"hi");
    }
    assert!(rustix::fs::getxattr(inside.join("b"), "trusted.overlay.redirect", &mut value).is_err());
}

#[test]
fn takes_from_the_layers_below_what_the_layer_leaves_out() {
    let (top, below, _) = folders();
    Tar::default()
        .folder("tmp", 0o1777)
        .folder("usr/lib", 0o750)
        .symlink("lib", "usr/lib")
        .file("data", b"old")
        .unpack(&below, &[])
        .unwrap();
    let inside = top.path().join("upper");
    std::fs::create_dir(&inside).unwrap();
    Tar::default()
        .file("tmp/x", b"")
        .file("lib/so", b"so")
        .link("again", "data")
        .unpack(&inside, std::slice::from_ref(&below))
        .unwrap();
    assert_eq!(inside.join("tmp").metadata().unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(inside.join("usr/lib").metadata().unwrap().mode() & 0o7777, 0o750);
    assert_eq!(std::fs::read(inside.join("usr/lib/so")).unwrap(), b"so");
    assert!(inside.join("lib").symlink_metadata().is_err());
    assert_eq!(std::fs::read(inside.join("again")).unwrap(), b"old");
    assert!(Tar::default().link("l", "nowhere").unpack(&inside, &[below]).is_err());
}

#[test]
fn a_later_entry_replaces_an_earlier_one() {
    let (_top, inside, _) = folders();
    Tar::default()
        .folder("a", 0o755)
        .file("a/b", b"deep")
        .file("a", b"file now")
        .symlink("s", "a")
        .folder("s", 0o700)
        .unpack(&inside, &[])
        .unwrap();
    assert_eq!(std::fs::read(inside.join("a")).unwrap(), b"file now");
    assert!(inside.join("s").symlink_metadata().unwrap().is_dir());
}
