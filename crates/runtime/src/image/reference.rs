//! Image names: `busybox` is `docker.io/library/busybox:latest`.

use oci_client::Reference;

use super::ImageError;

/// A name in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(Reference);

impl Name {
    /// Reads a name as people write it.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        text.parse().map(Name).map_err(|_| ImageError::Reference(text.to_owned()))
    }

    /// The registry's host, with its port.
    pub fn registry(&self) -> &str {
        self.0.registry()
    }

    /// Registry and repository.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.0.registry(), self.0.repository())
    }

    /// With its tag, when it is not named by digest alone.
    pub fn tagged(&self) -> Option<String> {
        self.0.tag().map(|tag| format!("{}:{tag}", self.repository()))
    }

    /// The digest in the name.
    pub fn digest(&self) -> Option<&str> {
        self.0.digest()
    }

    /// With a digest instead of a tag.
    pub fn at(&self, digest: &str) -> String {
        format!("{}@{digest}", self.repository())
    }

    /// In full, as it is shown.
    pub fn full(&self) -> String {
        self.0.whole()
    }

    /// For the registry client.
    pub fn reference(&self) -> &Reference {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_in_what_people_leave_out() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let cases = [
            ("busybox", "docker.io/library/busybox", Some("latest")),
            ("busybox:1.36", "docker.io/library/busybox", Some("1.36")),
            ("polinux/stress", "docker.io/polinux/stress", Some("latest")),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause", Some("3.10")),
            ("localhost:5000/a/b:c", "localhost:5000/a/b", Some("c")),
        ];
        for (text, repository, tag) in cases {
            let name = Name::parse(text).unwrap();
            assert_eq!(name.repository(), repository, "{text}");
            assert_eq!(name.tagged(), tag.map(|tag| format!("{repository}:{tag}")), "{text}");
        }
        let pinned = Name::parse(&format!("busybox@{digest}")).unwrap();
        assert_eq!((pinned.tagged(), pinned.digest()), (None, Some(digest.as_str())));
        for bad in ["", "UPPER", "a b", "a:b:c"] {
            assert!(Name::parse(bad).is_err(), "{bad:?}");
        }
    }
}
