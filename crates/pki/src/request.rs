//! Requests for certificates: our own as data, and others' as PKCS #10.

use std::net::IpAddr;
use std::time::Duration;

use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension, SubjectAlternativeName};
use x509_parser::prelude::FromDer;

use crate::{PkiError, Result, SigningKey, Usages, peer, pem, x509};

/// A certificate that we want for ourselves.
#[derive(Clone, Debug)]
pub struct CertRequest {
    /// The user, or the server's name.
    pub common_name: String,
    /// The user's groups.
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub ips: Vec<IpAddr>,
    pub usages: Usages,
    /// From now on; cut to the authority's own end.
    pub validity: Duration,
}

/// How long certificates of ours are good for unless asked otherwise: a year.
const VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);

impl CertRequest {
    /// For a client that is the user in the groups.
    pub fn client(user: &str, groups: &[&str]) -> Self {
        CertRequest {
            common_name: user.to_string(),
            organizations: groups.iter().map(ToString::to_string).collect(),
            dns_names: Vec::new(),
            ips: Vec::new(),
            usages: Usages::client(),
            validity: VALIDITY,
        }
    }

    /// For a server at the names and addresses.
    pub fn server(common_name: &str, dns_names: &[&str], ips: &[IpAddr]) -> Self {
        CertRequest {
            common_name: common_name.to_string(),
            organizations: Vec::new(),
            dns_names: dns_names.iter().map(ToString::to_string).collect(),
            ips: ips.to_vec(),
            usages: Usages::server(),
            validity: VALIDITY,
        }
    }

    pub(crate) fn alt_names(&self) -> AltNames {
        AltNames { dns_names: self.dns_names.clone(), ips: self.ips.clone(), ..AltNames::default() }
    }

    pub(crate) fn subject(&self) -> Vec<u8> {
        let groups = self.organizations.iter().map(|group| (x509::ORGANIZATION, group.as_str()));
        x509::name(groups.chain([(x509::COMMON_NAME, self.common_name.as_str())]))
    }
}

/// A PKCS #10 request (PEM) for the subject and names of `wanted`, signed with `key`: what goes into
/// `spec.request` of a CertificateSigningRequest.
pub fn signing_request(wanted: &CertRequest, key: &SigningKey) -> Result<String> {
    let alt_names = x509::alt_names(&wanted.alt_names())?;
    Ok(pem::encode("CERTIFICATE REQUEST", &x509::request(&wanted.subject(), alt_names.as_deref(), key)?))
}

/// A request that somebody else made. Its signature has been checked: who asks holds the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningRequest {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub alt_names: AltNames,
    pub(crate) subject: Vec<u8>,
    pub(crate) public_key: Vec<u8>,
}

/// Names besides the subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AltNames {
    pub dns_names: Vec<String>,
    pub ips: Vec<IpAddr>,
    pub email_addresses: Vec<String>,
    pub uris: Vec<String>,
    /// Names of a kind that Kubernetes has no use for.
    pub others: usize,
}

impl AltNames {
    pub(crate) fn read(names: &SubjectAlternativeName<'_>) -> Self {
        let mut found = AltNames::default();
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(name) => found.dns_names.push((*name).to_string()),
                GeneralName::RFC822Name(name) => found.email_addresses.push((*name).to_string()),
                GeneralName::URI(name) => found.uris.push((*name).to_string()),
                GeneralName::IPAddress(bytes) => match address(bytes) {
                    Some(ip) => found.ips.push(ip),
                    None => found.others += 1,
                },
                _ => found.others += 1,
            }
        }
        found
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

impl SigningRequest {
    /// Reads a `CERTIFICATE REQUEST` block and checks its signature.
    pub fn from_pem(text: &[u8]) -> Result<Self> {
        let malformed = |reason: String| PkiError::malformed("certificate signing request", reason);
        let der =
            CertificateSigningRequestDer::from_pem_slice(text).map_err(|error| malformed(format!("{error:?}")))?;
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|error| malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("trailing data".to_string()));
        }
        request.verify_signature().map_err(|error| malformed(error.to_string()))?;
        let info = &request.certification_request_info;
        let mut alt_names = AltNames::default();
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                alt_names = AltNames::read(names);
            }
        }
        let subject = peer::subject(&info.subject);
        Ok(SigningRequest {
            common_name: subject.common_name,
            organizations: subject.organizations,
            alt_names,
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
        })
    }
}
