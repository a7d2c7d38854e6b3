//! The first file system of the emulated machine: a static busybox, the modules that lead to the shared root, and a
//! script that goes there.
//!
//! The format is the kernel's own (`newc` cpio, see Documentation/driver-api/early-userspace/buffer-format.rst);
//! uncompressed, because it is read once from memory.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::SHARE_TAG;

/// What leads to the shared root and to the disk; what these need in turn is looked up.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "virtiofs", "overlay"];
const FILE: u32 = 0o100_755;
const DIR: u32 = 0o040_755;

/// The archive that starts `xtask __vm-init` in the shared root.
pub fn build(modules: &Path, busybox: &Path, xtask: &Path) -> Result<Vec<u8>> {
    let mut archive = Cpio::default();
    for dir in ["bin", "modules", "proc", "dev", "lower", "upper", "root"] {
        archive.entry(dir, DIR, &[]);
    }
    archive.entry("bin/busybox", FILE, &fs::read(busybox).context("reading busybox")?);
    let listed = fs::read_to_string(modules.join("modules.dep")).context("reading the list of modules")?;
    let files = in_load_order(&listed)?;
    let names: Vec<&str> = files.iter().map(|file| file.rsplit('/').next().unwrap_or(file)).collect();
    for (file, name) in files.iter().zip(&names) {
        archive.entry(
            &format!("modules/{name}"),
            FILE,
            &fs::read(modules.join(file)).with_context(|| format!("reading {file}"))?,
        );
    }
    archive.entry("init", FILE, script(xtask, &names).as_bytes());
    Ok(archive.end())
}

/// The files of `MODULES` and of what they need, in the order they must be loaded. A line of `modules.dep` names a
/// module, then what it needs, the first to load last.
fn in_load_order(listed: &str) -> Result<Vec<String>> {
    let mut files: Vec<String> = Vec::new();
    for name in MODULES {
        let end = format!("/{name}.ko");
        let mut lines = listed.lines().filter_map(|line| line.split_once(':'));
        let (file, needs) =
            lines.find(|(file, _)| file.ends_with(&end)).with_context(|| format!("the kernel has no module {name}"))?;
        for file in needs.split_whitespace().rev().chain([file]) {
            if !files.iter().any(|known| known == file) {
                files.push(file.to_owned());
            }
        }
    }
    Ok(files)
}

fn script(xtask: &Path, modules: &[&str]) -> String {
    let modules = modules.join(" ");
    format!(
        "#!/bin/busybox sh\nset -e\nb=/bin/busybox\n$b mount -t proc proc /proc\n$b mount -t devtmpfs dev /dev\n\
         for module in {modules}; do $b insmod /modules/$module; done\n\
         $b mount -t virtiofs -o ro {SHARE_TAG} /lower\n$b mount -t tmpfs upper /upper\n$b mkdir /upper/data /upper/work\n\
         $b mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /root\n\
         $b umount /dev\n$b umount /proc\nexec $b switch_root /root {} __vm-init\n",
        xtask.display()
    )
}

#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

impl Cpio {
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (links, size, name_size) = (1u32, content.len() as u32, name.len() as u32 + 1);
        self.bytes.extend_from_slice(b"070701");
        // inode, mode, uid, gid, links, mtime, size, device (2), rdevice (2), name size, checksum
        for field in [self.entries, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_is_loaded_before_it_and_once() {
        let listed = "kernel/a/virtio_pci.ko: kernel/a/virtio.ko kernel/a/virtio_ring.ko\nkernel/b/virtio_blk.ko: kernel/a/virtio_ring.ko\n\
                      kernel/c/virtiofs.ko: kernel/c/fuse.ko\nkernel/d/overlay.ko:\n";
        let files = in_load_order(listed).unwrap();
        let names: Vec<&str> = files.iter().map(|file| file.rsplit('/').next().unwrap()).collect();
        let expected = "virtio_ring.ko virtio.ko virtio_pci.ko virtio_blk.ko fuse.ko virtiofs.ko overlay.ko";
        assert_eq!(names.join(" "), expected);
    }

    #[test]
    fn entries_are_aligned_and_sized_as_the_kernel_reads_them() {
        let mut archive = Cpio::default();
        archive.entry("init", FILE, b"hello");
        let bytes = archive.end();
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[54..62], b"00000005");
        // 110 bytes of header, name and its zero, padded to 116; content padded to 124
        assert_eq!(&bytes[116..121], b"hello");
        assert_eq!(&bytes[124..130], b"070701");
        assert!(bytes.windows(10).any(|window| window == b"TRAILER!!!"));
    }
}
