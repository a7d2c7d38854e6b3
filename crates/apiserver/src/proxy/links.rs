//! Links of a page that is shown through the proxy: absolute ones are led back through it.
//!
//! A page behind `/api/v1/namespaces/n/services/s/proxy/` that links to `/next` means its own server's `/next`, but a browser
//! would ask us for that. So links that start with a slash, or name the page's own host, get the proxy's path in front;
//! relative ones work as they are. Only attributes that HTML says are addresses are touched, everything else stays byte for
//! byte. Pages that are compressed or larger than [`PAGE_BYTES_MAX`] are passed on as they are.

use bytes::Bytes;
use html5gum::emitters::default::DefaultEmitter;
use html5gum::{Token, Tokenizer};
use http::header::{self, HeaderMap, HeaderValue};

/// The largest page that is held in memory to be rewritten.
pub const PAGE_BYTES_MAX: usize = 4 << 20;

/// Which attributes of which elements are addresses.
const ADDRESSES: [(&str, &[&str]); 32] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("image", &["href"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("track", &["src"]),
    ("use", &["href"]),
    ("video", &["poster", "src"]),
    ("td", &["background"]),
    ("th", &["background"]),
    ("table", &["background"]),
    ("tr", &["background"]),
];

/// Where a page comes from and where it is shown.
#[derive(Clone, Debug)]
pub struct Links {
    /// The proxy's path, without a slash at the end.
    pub prefix: String,
    /// The page's own server, `host:port`.
    pub page_host: String,
    /// What the client called us.
    pub asked_host: String,
}

impl Links {
    /// Leads a redirect back through the proxy.
    pub fn rewrite_location(&self, headers: &mut HeaderMap) {
        let Some(old) = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()) else { return };
        if let Some(Ok(new)) = self.rewritten(old).map(|new| HeaderValue::from_str(&new)) {
            headers.insert(header::LOCATION, new);
        }
    }

    /// Whether the answer is a page with links that can be seen.
    pub fn concern(headers: &HeaderMap) -> bool {
        let text =
            |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
        media.eq_ignore_ascii_case("text/html") && text(header::CONTENT_ENCODING).is_empty()
    }

    /// The page with its links led back through the proxy.
    pub fn rewrite_page(&self, page: &Bytes) -> Bytes {
        let Ok(text) = std::str::from_utf8(page) else { return page.clone() };
        let mut emitter = DefaultEmitter::<usize>::new_with_span();
        emitter.naively_switch_states(true);
        let mut changes: Vec<(usize, usize, String)> = Vec::new();
        for token in Tokenizer::new_with_emitter(text, emitter) {
            let Ok(Token::StartTag(tag)) = token else { continue };
            let Some((_, names)) = ADDRESSES.iter().find(|(name, _)| name.as_bytes() == &**tag.name) else { continue };
            for (name, value) in &tag.attributes {
                if !names.iter().any(|known| known.as_bytes() == &***name) {
                    continue;
                }
                let link = String::from_utf8_lossy(&value.value);
                let place = value_within(text, value.span.start, value.span.end);
                if let (Some(new), Some((start, end))) = (self.rewritten(&link), place) {
                    changes.push((start, end, new.replace('&', "&amp;").replace('"', "&#34;").replace('\'', "&#39;")));
                }
            }
        }
        changes.sort_unstable();
        let (mut out, mut done) = (String::with_capacity(text.len() + changes.len() * self.prefix.len()), 0);
        for (start, end, new) in changes {
            out.push_str(&text[done..start]);
            out.push_str(&new);
            done = end;
        }
        out.push_str(&text[done..]);
        out.into()
    }

    /// The link as it has to be here; none when it may stay.
    fn rewritten(&self, link: &str) -> Option<String> {
        let (scheme, rest) = match link.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
            _ => ("", link.strip_prefix("//").filter(|_| link.starts_with("//")).unwrap_or("")),
        };
        let (host, path) =
            if rest.is_empty() { ("", link) } else { rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())) };
        let foreign = !host.is_empty() && host != self.page_host && host != self.asked_host;
        if foreign || !path.starts_with('/') {
            return None;
        }
        let origin = match (host == self.asked_host, scheme) {
            (true, "") if !host.is_empty() => format!("//{host}"),
            (true, scheme) if !host.is_empty() => format!("{scheme}://{host}"),
            _ => String::new(),
        };
        let prefix = if path.starts_with(&self.prefix) { "" } else { &self.prefix };
        Some(format!("{origin}{prefix}{path}")).filter(|new| new != link)
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte))
}

/// Where the value stands in `name="value"`, without quotes.
fn value_within(text: &str, start: usize, end: usize) -> Option<(usize, usize)> {
    let equals = start + text.get(start..end)?.find('=')? + 1;
    let value = text.get(equals..end)?;
    let begin = equals + value.len() - value.trim_start().len();
    let value = text.get(begin..end)?;
    match value.chars().next()? {
        quote @ ('"' | '\'') => {
            let length = value[1..].find(quote).unwrap_or(value.len() - 1);
            Some((begin + 1, begin + 1 + length))
        }
        _ => {
            let length = value.find(|c: char| c.is_ascii_whitespace() || c == '>').unwrap_or(value.len());
            Some((begin, begin + length))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        Links { prefix: "/proxy".into(), page_host: "10.42.0.7:80".into(), asked_host: "127.0.0.1:6443".into() }
    }

    fn shown(page: &'static str) -> String {
        String::from_utf8(links().rewrite_page(&Bytes::from_static(page.as_bytes())).to_vec()).unwrap()
    }

    #[test]
    fn absolute_links_of_the_page_lead_through_the_proxy() {
        assert_eq!(shown(r#"<a href="/next">test</a>"#), r#"<a href="/proxy/next">test</a>"#);
        assert_eq!(
            shown("<img class=x src=/i.png><script src='/s.js'>"),
            "<img class=x src=/proxy/i.png><script src='/proxy/s.js'>"
        );
        assert_eq!(shown(r#"<a href="http://10.42.0.7:80/a/?b=1&amp;c">"#), r#"<a href="/proxy/a/?b=1&amp;c">"#);
        assert_eq!(shown(r#"<a href="https://127.0.0.1:6443/a">"#), r#"<a href="https://127.0.0.1:6443/proxy/a">"#);
    }

    #[test]
    fn everything_else_stays_byte_for_byte() {
        for page in [
            r#"<a href="next">relative</a>"#,
            r#"<a href="/proxy/next">led here already</a>"#,
            r#"<a href="https://elsewhere.example/x">x</a><a href="//cdn.example/y">y</a><a href="mailto:x@y">z</a>"#,
            r#"<p title="/no/link">text /next &amp; <!-- <a href="/x"> --></p>"#,
            r#"<script>let a = '<a href="/x">';</script>"#,
            "<a href>",
            "<a href=",
        ] {
            assert_eq!(shown(page), page);
        }
    }

    #[test]
    fn a_redirect_is_led_back_too() {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, HeaderValue::from_static("/login?next=%2F"));
        links().rewrite_location(&mut headers);
        assert_eq!(headers[header::LOCATION], "/proxy/login?next=%2F");
    }

    #[test]
    fn only_pages_that_can_be_read_are_concerned() {
        let answer = |kind: &'static str, encoding: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            encoding.map(|encoding| headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding)));
            Links::concern(&headers)
        };
        assert!(answer("text/html; charset=utf-8", None));
        assert!(!answer("text/html", Some("gzip")));
        assert!(!answer("application/json", None));
    }
}
