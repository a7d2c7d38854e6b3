//! What is issued, read back by another implementation.

use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::X509Version;

use super::*;
use crate::{AltNames, CertificateFacts, Kubeconfig, signing_request};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn clock() -> Clock {
    Clock::simulated("2026-11-21T12:00:00Z".parse().unwrap())
}

fn der(pem: &str) -> CertificateDer<'static> {
    crate::pem::certificates(pem).unwrap().swap_remove(0)
}

fn extended(certificate: &X509Certificate<'_>) -> (bool, bool) {
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    (usage.server_auth, usage.client_auth)
}

#[tokio::test(start_paused = true)]
async fn an_authority_is_one_and_survives_its_files() {
    let made = Authority::generate("kubernetes-ca", &clock()).unwrap();
    let read = Authority::from_pem(&made.certificate_pem(), &made.key_pem()).unwrap();
    assert_eq!((&made.key_id, &made.subject), (&read.key_id, &read.subject));
    assert_eq!(made.public_key_hash(), read.public_key_hash());
    let facts = CertificateFacts::from_pem(&made.certificate_pem()).unwrap();
    assert_eq!((facts.common_name.as_str(), facts.is_authority), ("kubernetes-ca", true));
    assert_eq!(facts.not_after.to_string(), "2036-11-18T12:00:00Z");
    let der = der(&made.certificate_pem());
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    certificate.verify_signature(None).unwrap();
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && usage.digital_signature() && !usage.crl_sign());
}

#[tokio::test(start_paused = true)]
async fn a_servers_certificate_has_its_names_addresses_and_usages() {
    let authority = Authority::generate("kubernetes-ca", &clock()).unwrap();
    let ips = ["10.43.0.1".parse().unwrap(), "::1".parse().unwrap()];
    let request = CertRequest::server("kube-apiserver", &["localhost", "kubernetes.default.svc"], &ips);
    let issued = authority.issue(&request, &clock()).unwrap();
    issued.certified_key().unwrap();
    let facts = issued.facts().unwrap();
    assert_eq!(facts.dns_names, ["localhost", "kubernetes.default.svc"]);
    assert_eq!((facts.ips, facts.is_authority), (ips.to_vec(), false));
    assert_eq!(facts.not_before.to_string(), "2026-11-21T11:55:00Z");
    assert_eq!(facts.not_after.to_string(), "2027-11-21T12:00:00Z");
    let der = der(&issued.chain_pem);
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let authority_der = authority.certificate_der();
    let (_, signer) = X509Certificate::from_der(authority_der).unwrap();
    certificate.verify_signature(Some(signer.public_key())).unwrap();
    assert_eq!((certificate.version(), certificate.issuer().as_raw()), (X509Version::V3, signer.subject().as_raw()));
    assert_eq!(extended(&certificate), (true, false));
    let authority_key = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    });
    assert_eq!(authority_key, Some(authority.key_id.clone()));
}

#[tokio::test(start_paused = true)]
async fn a_signed_request_keeps_subject_key_and_names() {
    let authority = Authority::generate("kubernetes-ca", &clock()).unwrap();
    let key = SigningKey::generate().unwrap();
    let wanted = CertRequest {
        organizations: vec!["system:nodes".to_string(), "second".to_string()],
        ..CertRequest::server("system:node:node-1", &["node-1"], &["192.0.2.7".parse().unwrap()])
    };
    let text = signing_request(&wanted, &key).unwrap();
    let request = SigningRequest::from_pem(text.as_bytes()).unwrap();
    assert_eq!(request.common_name, "system:node:node-1");
    assert_eq!(request.organizations, wanted.organizations);
    assert_eq!(request.alt_names, wanted.alt_names());
    let usages = Usages::from_words(["digital signature", "server auth"]).unwrap();
    let signed = authority.sign(&request, &usages, DAY, &clock()).unwrap();
    Issued { chain_pem: signed.clone(), key_pem: key.to_pem() }.certified_key().unwrap();
    let facts = CertificateFacts::from_pem(&signed).unwrap();
    assert_eq!(facts.renew_at().to_string(), "2026-11-22T03:58:20Z");
    assert_eq!((facts.organizations, facts.dns_names), (wanted.organizations, wanted.dns_names));
    let der = der(&signed);
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(certificate.subject().as_raw(), request.subject);
    assert_eq!(extended(&certificate), (true, false));
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_encipherment());
}

/// `rcgen` stands for other people's tools.
#[test]
fn requests_of_other_programs_are_read() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["a.example".to_string()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "jane");
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "devs");
    params.subject_alt_names.push(rcgen::SanType::Rfc822Name("jane@a.example".try_into().unwrap()));
    let text = params.serialize_request(&key).unwrap().pem().unwrap();
    let request = SigningRequest::from_pem(text.as_bytes()).unwrap();
    assert_eq!((request.common_name.as_str(), request.organizations.as_slice()), ("jane", &["devs".to_string()][..]));
    let alt_names = AltNames {
        dns_names: vec!["a.example".to_string()],
        email_addresses: vec!["jane@a.example".to_string()],
        ..AltNames::default()
    };
    assert_eq!(request.alt_names, alt_names);
}

#[test]
fn a_request_with_a_bad_signature_or_form_is_refused() {
    let key = SigningKey::generate().unwrap();
    let text = signing_request(&CertRequest::client("jane", &[]), &key).unwrap();
    let mut der: Vec<u8> = x509_parser::pem::parse_x509_pem(text.as_bytes()).unwrap().1.contents;
    let at = der.windows(4).position(|window| window == b"jane").unwrap();
    der[at] = b'b';
    let changed = crate::pem::encode("CERTIFICATE REQUEST", &der);
    assert!(SigningRequest::from_pem(changed.as_bytes()).is_err(), "renamed to bane");
    let certificate = crate::pem::encode("CERTIFICATE", &der);
    for text in [
        "",
        "x",
        certificate.as_str(),
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    ] {
        assert!(SigningRequest::from_pem(text.as_bytes()).is_err(), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_outlives_its_authority() {
    let authority = Authority::generate("kubernetes-ca", &clock()).unwrap();
    let request = CertRequest { validity: 20 * 365 * DAY, ..CertRequest::client("jane", &[]) };
    let facts = authority.issue(&request, &clock()).unwrap().facts().unwrap();
    assert_eq!(facts.not_after, authority.not_after);
    let forever = CertRequest { validity: Duration::MAX, ..request };
    assert_eq!(authority.issue(&forever, &clock()).unwrap().facts().unwrap().not_after, authority.not_after);
}

#[test]
fn dates_from_2050_on_take_the_longer_form() {
    let late = Clock::simulated("2049-06-01T00:00:00Z".parse().unwrap());
    let facts = CertificateFacts::from_pem(&Authority::generate("x", &late).unwrap().certificate_pem()).unwrap();
    assert_eq!(facts.not_before.to_string(), "2049-05-31T23:55:00Z");
    assert_eq!(facts.not_after.to_string(), "2059-05-30T00:00:00Z");
}

#[test]
fn usages_are_the_apis_words() {
    let usages = Usages::from_words(["client auth", "signing", "digital signature", "decipher only"]).unwrap();
    assert_eq!(usages.key, [0, 8]);
    assert_eq!(Usages::from_words(["client auth", "digital signature", "key encipherment"]).unwrap(), Usages::client());
    assert_eq!(Usages::from_words(["flying"]).unwrap_err().to_string(), "unrecognized usage \"flying\"");
}

#[test]
fn a_kubeconfig_has_everything_embedded() {
    let authority = Authority::generate("kubernetes-ca", &Clock::system()).unwrap();
    let credential = authority.issue(&CertRequest::client("admin", &["system:masters"]), &Clock::system()).unwrap();
    let text = Kubeconfig {
        cluster: "coracle",
        server: "https://127.0.0.1:6443",
        authority_pem: &authority.certificate_pem(),
        user: "admin",
        credential: &credential,
    }
    .to_text();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["current-context"], "admin@coracle");
    assert_eq!(config["clusters"][0]["cluster"]["server"], "https://127.0.0.1:6443");
    assert_eq!(config["users"][0]["user"].as_object().unwrap().len(), 2);
}
