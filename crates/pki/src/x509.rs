//! Writing X.509: certificates and signing requests as DER (RFC 5280, RFC 2986).
//!
//! Only what Kubernetes' certificates have. Subjects and keys may come as ready DER, so that what a request asked for is
//! copied to the byte. Reading is `x509-parser`'s.

use std::net::IpAddr;

use base::{Timestamp, chance};
use yasna::models::ObjectIdentifier;
use yasna::tags::{TAG_GENERALIZEDTIME, TAG_UTCTIME};
use yasna::{DERWriter, DERWriterSeq, Tag};

use crate::request::AltNames;
use crate::{PkiError, Result, SigningKey, Usages};

pub const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
pub const ORGANIZATION: &[u64] = &[2, 5, 4, 10];
const ECDSA_WITH_SHA256: &[u64] = &[1, 2, 840, 10045, 4, 3, 2];
const EXTENSION_REQUEST: &[u64] = &[1, 2, 840, 113549, 1, 9, 14];
const SUBJECT_KEY_ID: &[u64] = &[2, 5, 29, 14];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY_ID: &[u64] = &[2, 5, 29, 35];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];

/// Dates from this year on take the longer form.
const GENERALIZED_FROM_YEAR: i16 = 2050;
const KEY_ID_BYTES: usize = 20;

/// A certificate before it is signed.
pub struct Template<'a> {
    /// Name (DER).
    pub subject: &'a [u8],
    /// SubjectPublicKeyInfo (DER).
    pub public_key: &'a [u8],
    /// Name (DER) and key identifier of who signs.
    pub issuer: &'a [u8],
    pub issuer_key_id: &'a [u8],
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub usages: &'a Usages,
    pub is_authority: bool,
    /// GeneralNames (DER), if there are any.
    pub alt_names: Option<&'a [u8]>,
}

/// Signs a certificate; returns its DER.
pub fn certificate(template: &Template<'_>, key: &SigningKey) -> Result<Vec<u8>> {
    let mut serial = [0; 16];
    chance::fill(&mut serial);
    // Positive, and never with leading zeros.
    serial[0] = serial[0] & 0x7f | 0x40;
    let body = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_tagged(Tag::context(0), |writer| writer.write_u8(2));
            writer.next().write_bigint_bytes(&serial, true);
            algorithm(writer.next());
            writer.next().write_der(template.issuer);
            writer.next().write_sequence(|writer| {
                date(writer.next(), template.not_before);
                date(writer.next(), template.not_after);
            });
            writer.next().write_der(template.subject);
            writer.next().write_der(template.public_key);
            writer.next().write_tagged(Tag::context(3), |writer| {
                writer.write_sequence(|writer| extensions(writer, template));
            });
        });
    });
    signed(&body, key)
}

/// A request for a certificate, signed with the key it is for; returns its DER.
pub fn request(subject: &[u8], alt_names: Option<&[u8]>, key: &SigningKey) -> Result<Vec<u8>> {
    let public_key = key.public_der()?;
    let body = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_u8(0);
            writer.next().write_der(subject);
            writer.next().write_der(&public_key);
            writer.next().write_tagged_implicit(Tag::context(0), |writer| {
                writer.write_set(|writer| {
                    let Some(alt_names) = alt_names else { return };
                    writer.next().write_sequence(|writer| {
                        writer.next().write_oid(&oid(EXTENSION_REQUEST));
                        writer.next().write_set(|writer| {
                            writer
                                .next()
                                .write_sequence(|writer| extension(writer, SUBJECT_ALT_NAME, false, alt_names));
                        });
                    });
                });
            });
        });
    });
    signed(&body, key)
}

/// A name of attributes in order (DER).
pub fn name<'a>(attributes: impl IntoIterator<Item = (&'static [u64], &'a str)>) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            for (kind, value) in attributes {
                writer.next().write_set(|writer| {
                    writer.next().write_sequence(|writer| {
                        writer.next().write_oid(&oid(kind));
                        writer.next().write_utf8_string(value);
                    });
                });
            }
        });
    })
}

/// GeneralNames (DER); none without any.
pub fn alt_names(names: &AltNames) -> Result<Option<Vec<u8>>> {
    let mut texts = names.dns_names.iter().chain(&names.email_addresses).chain(&names.uris);
    if let Some(strange) = texts.find(|name| !name.is_ascii()) {
        return Err(PkiError::malformed("alternative name", strange));
    }
    let tagged = [(1, &names.email_addresses), (2, &names.dns_names), (6, &names.uris)];
    let texts = tagged.into_iter().flat_map(|(tag, names)| names.iter().map(move |name| (tag, name.as_str())));
    let content = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            for (tag, name) in texts {
                writer.next().write_tagged_implicit(Tag::context(tag), |writer| writer.write_ia5_string(name));
            }
            for ip in &names.ips {
                writer.next().write_tagged_implicit(Tag::context(7), |writer| match ip {
                    IpAddr::V4(ip) => writer.write_bytes(&ip.octets()),
                    IpAddr::V6(ip) => writer.write_bytes(&ip.octets()),
                });
            }
        });
    });
    // An empty sequence is two bytes.
    Ok((content.len() > 2).then_some(content))
}

/// The identifier of a key: the first 160 bits of the SHA-256 of its SubjectPublicKeyInfo's bits (RFC 7093).
pub fn key_id(public_key: &[u8]) -> Result<Vec<u8>> {
    use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};
    let (_, info) =
        SubjectPublicKeyInfo::from_der(public_key).map_err(|error| PkiError::malformed("public key", error))?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &info.subject_public_key.data);
    Ok(digest.as_ref()[..KEY_ID_BYTES].to_vec())
}

fn signed(body: &[u8], key: &SigningKey) -> Result<Vec<u8>> {
    let signature = key.sign(body)?;
    Ok(yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(body);
            algorithm(writer.next());
            writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
        });
    }))
}

fn algorithm(writer: DERWriter<'_>) {
    writer.write_sequence(|writer| writer.next().write_oid(&oid(ECDSA_WITH_SHA256)));
}

fn extensions(writer: &mut DERWriterSeq<'_>, template: &Template<'_>) {
    let mut add = |kind, critical, content: &[u8]| extension(writer, kind, critical, content);
    if !template.usages.key.is_empty() {
        add(KEY_USAGE, true, &key_usage(&template.usages.key));
    }
    if !template.usages.extended.is_empty() {
        let kinds = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                template.usages.extended.iter().for_each(|kind| writer.next().write_oid(&oid(kind)));
            });
        });
        add(EXTENDED_KEY_USAGE, false, &kinds);
    }
    let constraints = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            if template.is_authority {
                writer.next().write_bool(true);
            }
        });
    });
    add(BASIC_CONSTRAINTS, true, &constraints);
    if template.is_authority {
        add(SUBJECT_KEY_ID, false, &yasna::construct_der(|writer| writer.write_bytes(template.issuer_key_id)));
    } else {
        let issuer = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                let id = |writer: DERWriter<'_>| writer.write_bytes(template.issuer_key_id);
                writer.next().write_tagged_implicit(Tag::context(0), id);
            });
        });
        add(AUTHORITY_KEY_ID, false, &issuer);
    }
    if let Some(alt_names) = template.alt_names {
        add(SUBJECT_ALT_NAME, false, alt_names);
    }
}

fn extension(writer: &mut DERWriterSeq<'_>, kind: &[u64], critical: bool, content: &[u8]) {
    writer.next().write_sequence(|writer| {
        writer.next().write_oid(&oid(kind));
        if critical {
            writer.next().write_bool(true);
        }
        writer.next().write_bytes(content);
    });
}

/// The bits as a BIT STRING without trailing zeros.
fn key_usage(bits: &[u8]) -> Vec<u8> {
    let mut bytes = [0_u8; 2];
    for bit in bits {
        bytes[usize::from(bit / 8)] |= 0x80 >> (bit % 8);
    }
    let length = bits.iter().max().map_or(0, |last| usize::from(*last) + 1);
    yasna::construct_der(|writer| writer.write_bitvec_bytes(&bytes[..length.div_ceil(8)], length))
}

fn date(writer: DERWriter<'_>, at: Timestamp) {
    let at = at.to_zoned(jiff::tz::TimeZone::UTC);
    let (tag, text) = if at.year() < GENERALIZED_FROM_YEAR {
        (TAG_UTCTIME, at.strftime("%y%m%d%H%M%SZ").to_string())
    } else {
        (TAG_GENERALIZEDTIME, at.strftime("%Y%m%d%H%M%SZ").to_string())
    };
    writer.write_tagged_implicit(tag, |writer| writer.write_bytes(text.as_bytes()));
}

fn oid(components: &[u64]) -> ObjectIdentifier {
    ObjectIdentifier::from_slice(components)
}
