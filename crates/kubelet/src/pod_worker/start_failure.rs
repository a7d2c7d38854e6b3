//! A container that could not be started: why, what is shown meanwhile, and when it is tried again.

use std::time::Duration;

use base::Timestamp;

/// An error of the image is shown this long before the back-off that follows it, so that whoever looks sees both.
const ERROR_SHOWN: Duration = Duration::from_secs(2);

/// Why a start failed, upstream's reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReason {
    ErrImagePull,
    ErrImageNeverPull,
    InvalidImageName,
    ImageInspectError,
    CreateContainerConfigError,
    CreateContainerError,
    RunContainerError,
    PostStartHookError,
}

impl FailureReason {
    pub fn as_str(self) -> &'static str {
        match self {
            FailureReason::ErrImagePull => "ErrImagePull",
            FailureReason::ErrImageNeverPull => "ErrImageNeverPull",
            FailureReason::InvalidImageName => "InvalidImageName",
            FailureReason::ImageInspectError => "ImageInspectError",
            FailureReason::CreateContainerConfigError => "CreateContainerConfigError",
            FailureReason::CreateContainerError => "CreateContainerError",
            FailureReason::RunContainerError => "RunContainerError",
            FailureReason::PostStartHookError => "PostStartHookError",
        }
    }
}

/// A failed start with its back-off.
#[derive(Clone, Debug, PartialEq)]
pub struct StartFailure {
    pub reason: FailureReason,
    pub message: String,
    pub image: String,
    pub at: Timestamp,
    pub retry_at: Timestamp,
    /// How often it failed in a row.
    pub count: u32,
}

impl StartFailure {
    /// The failure after `before`: waits double from 10 s (1 s for configuration, which is also retried as soon as what is
    /// missing appears) to 300 s.
    pub fn after(
        before: Option<&StartFailure>,
        reason: FailureReason,
        message: String,
        image: &str,
        now: Timestamp,
    ) -> Self {
        let count = before.filter(|before| before.reason == reason).map_or(0, |before| before.count) + 1;
        let first = if reason == FailureReason::CreateContainerConfigError { 1u64 } else { 10 };
        let wait = (first << (count - 1).min(9)).min(300);
        let retry_at = now + Duration::from_secs(wait);
        StartFailure { reason, message, image: image.to_string(), at: now, retry_at, count }
    }

    /// The waiting reason and message of the container status.
    pub fn shown(&self, now: Timestamp) -> (String, String) {
        if self.reason == FailureReason::ErrImagePull && now >= self.at + ERROR_SHOWN {
            let message = format!("Back-off pulling image \"{}\": ErrImagePull: {}", self.image, self.message);
            return ("ImagePullBackOff".to_string(), message);
        }
        (self.reason.as_str().to_string(), self.message.clone())
    }

    /// When [`StartFailure::shown`] will say something else.
    pub fn shown_changes_at(&self, now: Timestamp) -> Option<Timestamp> {
        let change = self.at + ERROR_SHOWN;
        (self.reason == FailureReason::ErrImagePull && now < change).then_some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_pull_is_shown_first_and_its_back_off_after() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let first = StartFailure::after(None, FailureReason::ErrImagePull, "no".into(), "x:1", now);
        assert_eq!(first.shown(now), ("ErrImagePull".into(), "no".into()));
        let later = first.shown_changes_at(now).unwrap();
        assert_eq!(first.shown(later).0, "ImagePullBackOff");
        assert_eq!(first.shown(later).1, "Back-off pulling image \"x:1\": ErrImagePull: no");
        let mut waits = Vec::new();
        let mut last = first;
        for _ in 0..6 {
            waits.push(last.retry_at.duration_since(last.at).as_secs());
            last = StartFailure::after(Some(&last), FailureReason::ErrImagePull, "no".into(), "x:1", last.retry_at);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300]);
    }
}
