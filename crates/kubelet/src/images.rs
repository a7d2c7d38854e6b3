//! Getting the image of a container onto the node: policy, credentials, events.

use std::time::Duration;

use base::Timestamp;
use cri::v1::{AuthConfig, Image, ImageSpec, ImageStatusRequest, PodSandboxConfig, PullImageRequest};
use k8s_openapi::api::core::v1::{Container, Pod};
use meta::ObjectKey;

use crate::agent::Agent;
use crate::credentials;
use crate::pod::{self, Sort};
use crate::pod_worker::start_failure::FailureReason;
use crate::references::Kind;
use crate::security::ImageUser;
use crate::waker::Waker;

/// An image that is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Present {
    pub reference: String,
    pub user: ImageUser,
}

/// Why it is not; the message is the one of the container status.
pub type Failure = (FailureReason, String);

/// For which container an image is wanted.
pub struct Wanted<'a> {
    pub agent: &'a Agent,
    pub pod: &'a Pod,
    pub sort: Sort,
    pub container: &'a Container,
    pub sandbox: &'a PodSandboxConfig,
    pub waker: &'a Waker,
}

impl Wanted<'_> {
    /// Looks for the image and pulls it as the container's policy says.
    pub async fn ensure(&self) -> Result<Present, Failure> {
        let given = self.container.image.as_deref().unwrap_or_default();
        if let Err(why) = check_reference(given) {
            let message =
                format!("Failed to apply default image tag {given:?}: couldn't parse image name {given:?}: {why}");
            self.warn("InspectFailed", &message);
            return Err((FailureReason::InvalidImageName, message));
        }
        let image = with_default_tag(given);
        let present = self.find(&image).await.map_err(|error| {
            let message = format!("Failed to inspect image {image:?}: {error}");
            self.warn("InspectFailed", &message);
            (FailureReason::ImageInspectError, message)
        })?;
        match (present, policy(self.container, &image)) {
            (Some(present), "IfNotPresent" | "Never") => {
                let message =
                    format!("Container image {given:?} already present on machine and can be accessed by the pod");
                self.tell("Pulled", &message);
                Ok(present)
            }
            (None, "Never") => {
                let message = format!("Container image {given:?} is not present with pull policy of Never");
                self.warn("ErrImageNeverPull", &message);
                self.warn("Failed", "Error: ErrImageNeverPull");
                Err((FailureReason::ErrImageNeverPull, message))
            }
            _ => self.pull(given, &image).await,
        }
    }

    async fn find(&self, image: &str) -> Result<Option<Present>, cri::Error> {
        let spec = ImageSpec { image: image.to_string(), ..ImageSpec::default() };
        let answer = self.agent.cri.image_status(ImageStatusRequest { image: Some(spec), verbose: false }).await;
        match answer {
            Ok(answer) => Ok(answer.image.as_ref().map(present)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn pull(&self, given: &str, image: &str) -> Result<Present, Failure> {
        let clock = &self.agent.clock;
        let asked_at = clock.now();
        self.tell("Pulling", &format!("Pulling image {given:?}"));
        let permit = self.agent.pulls.acquire().await;
        let began_at = clock.now();
        let outcome = self.try_credentials(image).await;
        drop(permit);
        match outcome {
            Ok(reference) => {
                let found = self.find_pulled(image, &reference).await;
                let size = found.as_ref().map_or(0, |image| image.size);
                let (took, waited) = (span(began_at, clock.now()), span(asked_at, clock.now()));
                self.tell(
                    "Pulled",
                    &format!("Successfully pulled image {given:?} in {took} ({waited} including waiting). Image size: {size} bytes."),
                );
                let present = found.as_ref().map(present).unwrap_or_default();
                let reference = if present.reference.is_empty() { reference } else { present.reference.clone() };
                Ok(Present { reference, ..present })
            }
            Err(error) => {
                let message = format!("failed to pull and unpack image {image:?}: {error}");
                // A runtime's message says so itself.
                let message = if error.message().contains(image) || error.message().contains("pull") {
                    error.to_string()
                } else {
                    message
                };
                self.warn("Failed", &format!("Failed to pull image {given:?}: {message}"));
                self.warn("Failed", "Error: ErrImagePull");
                Err((FailureReason::ErrImagePull, message))
            }
        }
    }

    async fn find_pulled(&self, image: &str, reference: &str) -> Option<Image> {
        for name in [image, reference] {
            let spec = ImageSpec { image: name.to_string(), ..ImageSpec::default() };
            let request = ImageStatusRequest { image: Some(spec), verbose: false };
            match self.agent.cri.image_status(request).await {
                Ok(answer) if answer.image.is_some() => return answer.image,
                Ok(_) => {}
                Err(error) => tracing::debug!(image = name, %error, "a pulled image cannot be looked at"),
            }
        }
        None
    }

    /// Each fitting credential in turn; without any, as nobody.
    async fn try_credentials(&self, image: &str) -> Result<String, cri::Error> {
        let mut auths: Vec<Option<AuthConfig>> = self.pull_secrets(image).await.into_iter().map(Some).collect();
        if auths.is_empty() {
            auths.push(None);
        }
        let mut last = cri::Error::unknown("no credentials were tried");
        for auth in auths {
            let request = PullImageRequest {
                image: Some(ImageSpec { image: image.to_string(), ..ImageSpec::default() }),
                auth,
                sandbox_config: Some(self.sandbox.clone()),
            };
            match self.agent.cri.pull_image(request).await {
                Ok(answer) => return Ok(answer.image_ref),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn pull_secrets(&self, image: &str) -> Vec<AuthConfig> {
        let mut auths = Vec::new();
        for named in pod::spec(self.pod).image_pull_secrets.iter().flatten() {
            let key = ObjectKey::new(pod::namespace(self.pod), &named.name);
            let found = self.agent.references.get(Kind::Secret, &key, pod::uid(self.pod), self.waker).await;
            match found {
                Ok(Some(secret)) => auths.extend(credentials::for_image(&secret, image)),
                Ok(None) | Err(_) => {
                    let name = &named.name;
                    let about = self.agent.pod_reference(self.pod);
                    let message = format!(
                        "Unable to retrieve some image pull secrets ({name}); attempting to pull the image may not succeed."
                    );
                    self.agent.recorder.warning(&about, "FailedToRetrieveImagePullSecret", message);
                }
            }
        }
        auths
    }

    fn tell(&self, reason: &str, message: &str) {
        let about = self.agent.container_reference(self.pod, self.sort, &self.container.name);
        self.agent.recorder.normal(&about, reason, message);
    }

    fn warn(&self, reason: &str, message: &str) {
        let about = self.agent.container_reference(self.pod, self.sort, &self.container.name);
        self.agent.recorder.warning(&about, reason, message);
    }
}

fn present(image: &Image) -> Present {
    Present {
        reference: image.repo_digests.first().cloned().unwrap_or_else(|| image.id.clone()),
        user: ImageUser { uid: image.uid.as_ref().map(|uid| uid.value), name: image.username.clone() },
    }
}

fn policy<'a>(container: &'a Container, image: &str) -> &'a str {
    let latest = if image.ends_with(":latest") { "Always" } else { "IfNotPresent" };
    container.image_pull_policy.as_deref().filter(|policy| !policy.is_empty()).unwrap_or(latest)
}

/// `name:latest` for a bare name.
fn with_default_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) { image.to_string() } else { format!("{image}:latest") }
}

/// What makes an image name unreadable, in the words of the reference grammar.
pub fn check_reference(image: &str) -> Result<(), &'static str> {
    const INVALID: &str = "invalid reference format";
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let digest_is_good = |digest: &str| {
        digest
            .split_once(':')
            .is_some_and(|(_, hex)| hex.len() >= 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    if digest.is_some_and(|digest| !digest_is_good(digest)) {
        return Err(INVALID);
    }
    let (name, tag) = match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => (before, Some(tag)),
        _ => (name, None),
    };
    let tag_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let tag_is_good =
        |tag: &str| (1..=128).contains(&tag.len()) && tag.bytes().all(tag_letter) && !tag.starts_with(['.', '-']);
    if tag.is_some_and(|tag| !tag_is_good(tag)) || name.len() > 255 {
        return Err(INVALID);
    }
    let mut parts = name.split('/');
    let first = parts.next().unwrap_or_default();
    let has_host = name.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let path: Vec<&str> = if has_host { parts.collect() } else { std::iter::once(first).chain(parts).collect() };
    let part_is_good = |part: &&str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        part.bytes().all(inner) && edge(part.bytes().next()) && edge(part.bytes().last())
    };
    if path.is_empty() || !path.iter().all(part_is_good) {
        return Err(INVALID);
    }
    if path.iter().any(|part| part.bytes().any(|byte| byte.is_ascii_uppercase())) {
        return Err("invalid reference format: repository name must be lowercase");
    }
    Ok(())
}

/// As Go prints a duration, to the millisecond.
fn span(from: Timestamp, to: Timestamp) -> String {
    let span = Duration::try_from(to.duration_since(from)).unwrap_or_default();
    let milliseconds = span.as_millis();
    let seconds = |milliseconds: u128| {
        let text = format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000);
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    };
    match milliseconds {
        0..1000 => format!("{milliseconds}ms"),
        1000..60_000 => format!("{}s", seconds(milliseconds)),
        _ => format!("{}m{}s", milliseconds / 60_000, seconds(milliseconds % 60_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_the_grammar_says() {
        for (image, good) in [
            ("busybox", true),
            ("busybox:1.36", true),
            ("registry.example:5000/a/b:v1", true),
            ("localhost/a", true),
            ("a/b@sha256:0123456789abcdef0123456789abcdef", true),
            ("", false),
            ("Busybox", false),
            ("busybox:", false),
            ("busy box", false),
            ("a//b", false),
            ("-a", false),
            ("a@sha256:xyz", false),
            ("nginx::1", false),
        ] {
            assert_eq!(check_reference(image).is_ok(), good, "{image:?}");
        }
        assert_eq!(with_default_tag("registry.example:5000/a"), "registry.example:5000/a:latest");
        assert_eq!(with_default_tag("a:1"), "a:1");
    }

    #[test]
    fn spans_read_as_go_prints_them() {
        let from = Timestamp::UNIX_EPOCH;
        for (milliseconds, text) in [(7, "7ms"), (1200, "1.2s"), (61_030, "1m1.03s"), (2000, "2s")] {
            assert_eq!(span(from, from + Duration::from_millis(milliseconds)), text);
        }
    }
}
