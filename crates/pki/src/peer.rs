//! Who a certificate stands for: the common name is the user, the organizations are the groups.
//!
//! The chain must have been verified before, by the handshake.

use base::Clock;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

/// Upstream's attribute for a user's uid.
const UID: &str = "1.3.6.1.4.1.57683.2";

/// What a subject says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub uid: Option<String>,
}

/// The subject of a verified certificate; none when it names nobody, cannot be read, or is out of its dates (a connection
/// may outlive them).
pub fn identity(leaf: &CertificateDer<'_>, clock: &Clock) -> Option<Subject> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let now = clock.now().as_second();
    let validity = certificate.validity();
    let in_time = validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp();
    let subject = subject(certificate.subject());
    (in_time && !subject.common_name.is_empty()).then_some(subject)
}

pub(crate) fn subject(name: &X509Name<'_>) -> Subject {
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().ok().map(str::to_string);
    let uid = name.iter_attributes().find(|attribute| attribute.attr_type().to_id_string() == UID);
    Subject {
        // Of several, the last counts, as upstream reads it.
        common_name: name.iter_common_name().last().and_then(text).unwrap_or_default(),
        organizations: name.iter_organization().filter_map(text).collect(),
        uid: uid.and_then(text),
    }
}
