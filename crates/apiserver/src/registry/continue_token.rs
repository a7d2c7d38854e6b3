//! Where the next page of a list begins. Opaque to clients.
//!
//! A token names a revision, so that all pages show one moment. The revision -1 stands for "whatever is current": an expired
//! list is answered with such a token, for clients that would rather go on with what there is.

use api::codec::go_json;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, Engine};
use meta::Status;
use serde::{Deserialize, Serialize};

const VERSION: &str = "meta.k8s.io/v1";
const CURRENT: i64 = -1;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContinueToken {
    /// None to go on with what is current.
    pub revision: Option<u64>,
    /// The path (`namespace/name` or `name`) of the last object of the page before.
    pub after: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Written {
    v: String,
    rv: i64,
    start: String,
}

impl ContinueToken {
    pub fn encode(&self) -> String {
        let rv = self.revision.map_or(CURRENT, |revision| i64::try_from(revision).unwrap_or(i64::MAX));
        let written = Written { v: VERSION.into(), rv, start: format!("{}\0", self.after) };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&written).unwrap_or_default())
    }

    pub fn decode(text: &str) -> Result<Self, Status> {
        let refused =
            |why: &str| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let bytes = decode_base64(text).map_err(|why| refused(&why))?;
        let text = go_json::check(&bytes).map_err(|why| refused(&why))?;
        let written: Written = serde_json::from_slice(&text).map_err(|error| refused(&error.to_string()))?;
        let (version, unknown) = (written.v.as_str(), "server does not recognize this encoded version");
        match version {
            VERSION => {}
            "" => return Err(refused(unknown)),
            _ => return Err(refused(&format!("{unknown} {version}"))),
        }
        if written.start.is_empty() {
            return Err(refused(&format!("encoded start key empty (version {VERSION})")));
        }
        if written.rv == 0 {
            return Err(refused(&format!("incorrect encoded start resourceVersion (version {VERSION})")));
        }
        let after = written.start.strip_suffix('\0').ok_or_else(|| refused("malformed start"))?;
        let plain = !after.is_empty() && after.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        if !plain {
            return Err(refused(&format!("invalid start key: {after}")));
        }
        let revision = match written.rv {
            CURRENT => None,
            rv => Some(u64::try_from(rv).map_err(|_| refused("incorrect encoded start resourceVersion"))?),
        };
        Ok(ContinueToken { revision, after: after.to_string() })
    }
}

/// Base64 without padding, as Go reads it: the bits that the last letter has too many do not matter.
fn decode_base64(text: &str) -> Result<Vec<u8>, String> {
    let lenient = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone);
    GeneralPurpose::new(&URL_SAFE, lenient).decode(text).map_err(|error| match error {
        DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => {
            format!("illegal base64 data at input byte {at}")
        }
        _ => format!("illegal base64 data at input byte {}", text.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_went() {
        for revision in [Some(7), None] {
            let token = ContinueToken { revision, after: "default/a".into() };
            assert_eq!(ContinueToken::decode(&token.encode()).unwrap(), token);
        }
    }

    #[test]
    fn refuses_what_it_did_not_make() {
        let made = |v: &str, rv, start: &str| {
            let written = Written { v: v.into(), rv, start: start.into() };
            URL_SAFE_NO_PAD.encode(serde_json::to_vec(&written).unwrap())
        };
        for text in [
            "!".to_string(),
            URL_SAFE_NO_PAD.encode("{}"),
            made("v0", 1, "a\0"),
            made(VERSION, 0, "a\0"),
            made(VERSION, -2, "a\0"),
            made(VERSION, 1, "../secrets/a\0"),
            made(VERSION, 1, "a"),
        ] {
            assert_eq!(ContinueToken::decode(&text).unwrap_err().code, 400, "{text}");
        }
    }
}
