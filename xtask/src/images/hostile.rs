//! Images that mean harm: layers that try to write, link or grow out of their place. A node must refuse or contain them.
//!
//! They are written byte by byte, because no honest library writes such archives. What each would do is left at names
//! that contain `escaped`, so that a test can look for it on the node.

use super::recipes::{Compression, Format, Image, Start};

/// One hostile layer: what it is called, and its archive.
pub struct HostileLayer {
    pub name: &'static str,
    pub tar: Vec<u8>,
}

const FILE: u8 = b'0';
const HARD_LINK: u8 = b'1';
const SYMLINK: u8 = b'2';
const DEVICE: u8 = b'3';
const CONTENT: &[u8] = b"escaped\n";
/// More than any node has.
const CLAIMED_BYTES: u64 = 1 << 40;

/// Every hostile layer.
pub fn layers() -> Vec<HostileLayer> {
    let climbing = "../../../../../../../../../../../../tmp/escaped-by-climbing";
    vec![
        layer("climbing", |tar| tar.entry(climbing, FILE, "", CONTENT)),
        layer("absolute", |tar| tar.entry("/tmp/escaped-by-absolute-name", FILE, "", CONTENT)),
        layer("through-link", |tar| {
            tar.entry("way", SYMLINK, "/tmp", b"");
            tar.entry("way/escaped-through-link", FILE, "", CONTENT);
            tar.entry("up", SYMLINK, "../../../../../../../../tmp", b"");
            tar.entry("up/escaped-through-climbing-link", FILE, "", CONTENT);
        }),
        layer("stealing", |tar| tar.entry("escaped-shadow", HARD_LINK, "/../../../../../../../../etc/shadow", b"")),
        layer("device", |tar| tar.device("escaped-disk", 1, 1)),
        layer("bomb", |tar| tar.header("bomb", FILE, "", CLAIMED_BYTES)),
        layer("garbage", |tar| tar.bytes.extend_from_slice(&[0xA5; 4096])),
    ]
}

/// The image around each of them: what a test pulls as `hostile/<name>:1`.
pub fn image(name: &'static str, repository: &'static str, layers: &'static [&'static str]) -> Image {
    let start = Start { cmd: &["sh"], ..Start::default() };
    Image { name, repository, tag: "1", format: Format::Oci, layers, start }
}

/// Hostile layers are not compressed: what is hostile about them is inside.
pub const COMPRESSION: Compression = Compression::None;

fn layer(name: &'static str, fill: impl FnOnce(&mut Tar)) -> HostileLayer {
    let mut tar = Tar { bytes: Vec::new() };
    fill(&mut tar);
    tar.bytes.extend_from_slice(&[0; 1024]);
    HostileLayer { name, tar: tar.bytes }
}

struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    fn entry(&mut self, name: &str, kind: u8, link: &str, content: &[u8]) {
        self.header(name, kind, link, content.len() as u64);
        self.bytes.extend_from_slice(content);
        let padded = self.bytes.len().next_multiple_of(512);
        self.bytes.resize(padded, 0);
    }

    fn header(&mut self, name: &str, kind: u8, link: &str, size: u64) {
        self.bytes.extend_from_slice(&header(name, kind, link, size, (0, 0)));
    }

    fn device(&mut self, name: &str, major: u64, minor: u64) {
        self.bytes.extend_from_slice(&header(name, DEVICE, "", 0, (major, minor)));
    }
}

/// A ustar header, whatever it says.
fn header(name: &str, kind: u8, link: &str, size: u64, device: (u64, u64)) -> [u8; 512] {
    let mut block = [0u8; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000666\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    // sizes beyond what eleven octal digits hold are written as a binary number
    if size < 1 << 33 {
        put(124, format!("{size:011o}\0").as_bytes());
    } else {
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    put(329, format!("{:07o}\0{:07o}\0", device.0, device.1).as_bytes());
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use tar::Archive;

    use super::*;

    #[test]
    fn the_archives_say_what_they_are_meant_to_say() {
        let layers = layers();
        let climbing = layers.iter().find(|layer| layer.name == "climbing").unwrap();
        let mut archive = Archive::new(climbing.tar.as_slice());
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert!(entry.path().unwrap().starts_with("../.."));
        assert_eq!(entry.size(), CONTENT.len() as u64);
        let bomb = layers.iter().find(|layer| layer.name == "bomb").unwrap();
        let mut archive = Archive::new(bomb.tar.as_slice());
        assert_eq!(archive.entries().unwrap().next().unwrap().unwrap().size(), CLAIMED_BYTES);
        let device = layers.iter().find(|layer| layer.name == "device").unwrap();
        let mut archive = Archive::new(device.tar.as_slice());
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(
            (entry.header().device_major().unwrap(), entry.header().device_minor().unwrap()),
            (Some(1), Some(1))
        );
    }
}
