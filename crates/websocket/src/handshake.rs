//! The opening handshake: what the client offers, which protocol is spoken, the headers of the `101`.

use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The version of WebSocket that there is.
const VERSION: &str = "13";

/// Why a handshake fails, in words for the client.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    #[error("missing or bad Sec-WebSocket-Key")]
    NoKey,
    #[error("missing or bad WebSocket Version")]
    Version,
    #[error("requested protocol(s) are not supported: {offered:?}; supports {known:?}")]
    Protocol { offered: Vec<String>, known: Vec<&'static str> },
}

/// The client's side of a handshake.
#[derive(Debug)]
pub struct Handshake {
    accept: String,
    /// The protocols that the client offers, in its order.
    pub offered: Vec<String>,
}

impl Handshake {
    /// From the headers of a request for an upgrade.
    pub fn read(headers: &HeaderMap) -> Result<Self, Refused> {
        let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| !key.is_empty()).ok_or(Refused::NoKey)?;
        if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
            return Err(Refused::Version);
        }
        let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
        let offered = values.flat_map(|value| value.split(',')).map(str::trim);
        let offered = offered.filter(|protocol| !protocol.is_empty()).map(str::to_string).collect();
        Ok(Handshake { accept: derive_accept_key(key.as_bytes()), offered })
    }

    /// The first protocol of the client's that is known; none when it offers none.
    pub fn choose(&self, known: &[&'static str]) -> Result<Option<&'static str>, Refused> {
        let chosen = self.offered.iter().find_map(|offer| known.iter().find(|known| *known == offer).copied());
        if chosen.is_none() && !self.offered.is_empty() {
            return Err(Refused::Protocol { offered: self.offered.clone(), known: known.to_vec() });
        }
        Ok(chosen)
    }

    /// The headers of the `101` for a protocol of those offered, or for none.
    pub fn headers(&self, protocol: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        let texts = [(SEC_WEBSOCKET_ACCEPT, Some(self.accept.as_str())), (SEC_WEBSOCKET_PROTOCOL, protocol)];
        for (name, text) in texts {
            // Base64, and what came in a header, can go in a header.
            if let Some(Ok(value)) = text.map(HeaderValue::from_str) {
                headers.insert(name, value);
            }
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    const VERSION: (&str, &str) = ("sec-websocket-version", "13");

    #[test]
    fn the_clients_first_known_protocol_is_chosen() {
        let offers = [("sec-websocket-protocol", "x, b, a"), ("sec-websocket-protocol", "c")];
        let read = Handshake::read(&headers(&[KEY, VERSION, offers[0], offers[1]])).unwrap();
        assert_eq!(read.offered, ["x", "b", "a", "c"]);
        assert_eq!(read.choose(&["a", "b"]), Ok(Some("b")));
        assert_eq!(
            read.choose(&["y"]).unwrap_err().to_string(),
            r#"requested protocol(s) are not supported: ["x", "b", "a", "c"]; supports ["y"]"#
        );
        assert_eq!(Handshake::read(&headers(&[KEY, VERSION])).unwrap().choose(&["a"]), Ok(None));
    }

    #[test]
    fn a_handshake_needs_a_key_and_the_version() {
        assert_eq!(Handshake::read(&headers(&[VERSION])).unwrap_err(), Refused::NoKey);
        assert_eq!(Handshake::read(&headers(&[KEY])).unwrap_err(), Refused::Version);
        assert_eq!(Handshake::read(&headers(&[KEY, ("sec-websocket-version", "8")])).unwrap_err(), Refused::Version);
    }

    #[test]
    fn the_answer_is_derived_from_the_key() {
        let read = Handshake::read(&headers(&[KEY, VERSION])).unwrap();
        let answer = read.headers(Some("a"));
        // The example of RFC 6455.
        assert_eq!(answer["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(
            (&answer["upgrade"], &answer["connection"]),
            (&"websocket".parse().unwrap(), &"Upgrade".parse().unwrap())
        );
        assert_eq!(answer["sec-websocket-protocol"], "a");
        assert!(!read.headers(None).contains_key("sec-websocket-protocol"));
    }
}
