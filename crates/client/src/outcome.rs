//! What an answer means to a caller for whom an object that is gone is no error.
//!
//! Controllers act on caches that lag: what they change or delete may have left, or made room for another of the same name, by
//! the time the request arrives. Which of the two is ordinary is said at the call, with one word.

use meta::Status;

/// Answers of the server, read with patience.
pub trait Outcome<T> {
    /// None when there is no such object (any more).
    ///
    /// # Errors
    /// Any other refusal.
    fn unless_gone(self) -> Result<Option<T>, Status>;

    /// None when there is no such object (any more), or it is not the one the request names by uid or version.
    ///
    /// # Errors
    /// Any other refusal.
    fn unless_replaced(self) -> Result<Option<T>, Status>;
}

impl<T> Outcome<T> for Result<T, Status> {
    fn unless_gone(self) -> Result<Option<T>, Status> {
        match self {
            Err(status) if status.is_not_found() => Ok(None),
            outcome => outcome.map(Some),
        }
    }

    fn unless_replaced(self) -> Result<Option<T>, Status> {
        match self {
            Err(status) if status.is_not_found() || status.is_conflict() => Ok(None),
            outcome => outcome.map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::GroupResource;

    #[test]
    fn only_what_is_gone_or_replaced_is_forgiven() {
        let pods = GroupResource::new("", "pods");
        let answer = |status: Status| Err::<(), _>(status);
        let gone = || answer(Status::not_found(&pods, "a"));
        let replaced = || answer(Status::modified(&pods, "a"));
        let refused = || answer(Status::forbidden(&pods, "a", "no"));
        assert_eq!(Ok::<_, Status>(1).unless_gone(), Ok(Some(1)));
        assert_eq!(gone().unless_gone(), Ok(None));
        assert_eq!(gone().unless_replaced(), Ok(None));
        assert!(replaced().unless_gone().is_err());
        assert_eq!(replaced().unless_replaced(), Ok(None));
        assert!(refused().unless_gone().is_err() && refused().unless_replaced().is_err());
    }
}
