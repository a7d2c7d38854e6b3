//! The identity in a client certificate: common name is the user, organizations are the groups.
//!
//! The chain itself was verified in the handshake, against the cluster's authority; this reads the leaf, and looks at its
//! dates again because a connection may outlive them.

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::context::Identity;

/// Upstream's place for a user's uid in the subject.
const UID_ATTRIBUTE: &str = "1.3.6.1.4.1.57683.2";

/// Who the certificate stands for; none when it names nobody, cannot be read or is out of its dates.
pub fn identity(leaf: &CertificateDer<'_>) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    if !certificate.validity().is_valid() {
        return None;
    }
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    if name.is_empty() {
        return None;
    }
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(Into::into).collect();
    let uid = subject
        .iter_attributes()
        .find(|attribute| attribute.attr_type().to_id_string() == UID_ATTRIBUTE)
        .and_then(|attribute| attribute.as_str().ok());
    Some(Identity { name: name.into(), groups, uid: uid.unwrap_or_default().into(), ..Identity::default() })
}
