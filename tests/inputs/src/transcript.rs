//! Cases as transcripts: requests with the answers that upstream gives, in text files that a person can read.
//!
//! ```text
//! ### a wrong type                      what is wrong
//! # why a line is loose or owed         optional: for people
//! @loose message                        optional: lines that begin so are not compared (words of Go's own decoders, random names)
//! @owed message                         the same, but because ours are not yet upstream's; `@owed all`: no line is yet.
//!                                       A mark that is no longer needed fails; with INPUTS_OWED set, marks do not count
//! POST configmaps                       below /api/v1/namespaces/inputs/ unless it begins with a slash
//! content-type: application/json        the headers; JSON unless one is given, `content-type:` alone sends none
//!
//! {"metadata":{"name":"a"},"data":7}    the body; `\xNN` is a byte, `<<text*3>>` is repeated, a `\` at a line's end joins lines
//! -->
//! 400 BadRequest                        the answer: code and reason, then what there is of
//! message: ...                          message, details, causes and warnings
//! ```
//!
//! After every case that was refused, what is stored is compared with what was before, and the server must be ready.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::server::Server;
use crate::wire::{Answer, Call, Wire};

const NAMESPACE_PATH: &str = "/api/v1/namespaces/inputs";
/// What cases could leave behind.
const WATCHED: [&str; 7] = [
    "/api/v1/namespaces/inputs/configmaps",
    "/api/v1/namespaces/inputs/secrets",
    "/api/v1/namespaces/inputs/pods",
    "/api/v1/namespaces/inputs/services",
    "/api/v1/namespaces",
    "/apis/apps/v1/namespaces/inputs/deployments",
    "/apis/rbac.authorization.k8s.io/v1/namespaces/inputs/roles",
];
/// The longest line of an answer that is compared, in letters: some errors quote what was sent.
const LINE_LETTERS_MAX: usize = 1000;
/// Set to see all that is owed: marks do not count.
const OWED_VARIABLE: &str = "INPUTS_OWED";

/// One request and what upstream answers to it.
#[derive(Debug)]
struct Case {
    what: String,
    /// The request as it stands in the file.
    written: String,
    /// Beginnings of lines of the answer that are not compared.
    loose: Vec<String>,
    /// Beginnings of lines that are not yet as they should be.
    owed: Vec<String>,
    call: Call,
    expected: String,
}

/// Plays the cases of `cases/<name>.http` to a server of their own; every case that differs is told.
pub async fn play(name: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("cases/{name}.http"));
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let cases = parse(&text)?;
    // Controllers would write of their own accord, and what is stored is compared.
    let server = Server::start(&["--without", "controllers,scheduler"])?;
    let wire = server.admin()?;
    provide(&wire).await?;
    let (head, _) = text.split_once("###").unwrap_or((&text, ""));
    let (mut wrong, mut recorded) = (Vec::new(), head.to_owned());
    let mut stored = look(&wire).await?;
    let marks_count = std::env::var_os(OWED_VARIABLE).is_none();
    for case in &cases {
        let answer = wire.call(&case.call).await.with_context(|| case.what.clone())?;
        let told = tell(&answer);
        write!(recorded, "### {}\n{}-->\n{told}\n", case.what, case.written)?;
        if let Some(verdict) = judge(case, &told, marks_count).filter(|_| !server.is_recorded()) {
            wrong.push(format!("### {}\n{verdict}", case.what));
        }
        let now = look(&wire).await.with_context(|| format!("after {}", case.what))?;
        if answer.code >= 400 && now != stored {
            wrong.push(format!("### {}\nwas refused and left something behind", case.what));
        }
        stored = now;
    }
    if server.is_recorded() {
        discard(&wire).await?;
        return std::fs::write(&path, recorded).context("recording");
    }
    server.stop()?;
    ensure!(wrong.is_empty(), "{} of {} cases of {name}:\n\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    Ok(())
}

/// What is wrong with an answer, if anything is.
fn judge(case: &Case, told: &str, marks_count: bool) -> Option<String> {
    let differs = |owed: &[String]| {
        let is_compared = |line: &&str| !case.loose.iter().chain(owed).any(|begin| is_begun_by(line, begin));
        let compared = |text: &str| text.lines().filter(is_compared).map(lasting).collect::<Vec<_>>();
        compared(told) != compared(&case.expected)
    };
    let is_owed = !case.owed.is_empty();
    match differs(&[]) {
        false if is_owed => Some("is answered as upstream does: its `@owed` goes".to_owned()),
        true if !marks_count || differs(&case.owed) => Some(format!("expected:\n{}got:\n{told}", case.expected)),
        _ => None,
    }
}

/// A line without what is another on every server: uids, times, and the revisions of objects that are quoted.
fn lasting(line: &str) -> String {
    const REVISION: &str = r#"resourceVersion\":\""#;
    let shape = |text: &str| text.chars().map(|c| if c.is_ascii_hexdigit() { '0' } else { c }).collect::<String>();
    let (mut out, mut rest) = (String::new(), line);
    while let Some(letter) = rest.chars().next() {
        let begins = |shown: &str| rest.get(..shown.len()).is_some_and(|head| shape(head) == shown);
        if begins("00000000-0000-0000-0000-000000000000") {
            (out, rest) = (out + "<uid>", &rest[36..]);
        } else if begins("0000-00-00T00:00:00Z") {
            (out, rest) = (out + "<time>", &rest[20..]);
        } else if let Some(revision) = rest.strip_prefix(REVISION) {
            (out, rest) = (out + "<revision>", revision.trim_start_matches(|c: char| c.is_ascii_digit()));
        } else {
            out.push(letter);
            rest = &rest[letter.len_utf8()..];
        }
    }
    out
}

/// Whether a directive speaks of a line.
fn is_begun_by(line: &str, begin: &str) -> bool {
    begin == "all" || line.starts_with(begin)
}

/// What cases read and change: a namespace with one object of each kind that they name.
async fn provide(wire: &Wire) -> Result<()> {
    let meta = |name: &str| json!({"name": name, "labels": {"app": "a"}});
    let pod = json!({"containers": [{"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}]}]});
    let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": pod});
    let deployment = json!({"selector": {"matchLabels": {"app": "a"}}, "template": template});
    let at = |tail: &str| format!("{NAMESPACE_PATH}/{tail}");
    for (path, body) in [
        ("/api/v1/namespaces".to_owned(), json!({"metadata": {"name": "inputs"}})),
        (at("serviceaccounts"), json!({"metadata": meta("default")})),
        (at("configmaps"), json!({"metadata": meta("present"), "data": {"a": "1"}})),
        (at("configmaps"), json!({"metadata": meta("frozen"), "data": {"a": "1"}, "immutable": true})),
        (at("secrets"), json!({"metadata": meta("present"), "data": {"a": "MQ=="}})),
        (at("pods"), json!({"metadata": meta("present"), "spec": pod})),
        (at("services"), json!({"metadata": meta("present"), "spec": {"ports": [{"port": 80}]}})),
        (
            "/apis/apps/v1/namespaces/inputs/deployments".to_owned(),
            json!({"metadata": meta("present"), "spec": deployment}),
        ),
    ] {
        let answer = wire.call(&Call::new("POST", &path).with_json(&body)).await?;
        ensure!(answer.code == 201, "{path}: {}", String::from_utf8_lossy(&answer.body));
    }
    Ok(())
}

/// After recording: the other server lives on.
async fn discard(wire: &Wire) -> Result<()> {
    for path in WATCHED.iter().filter(|path| path.contains("/inputs/")) {
        wire.call(&Call::new("DELETE", &format!("{path}?gracePeriodSeconds=0"))).await?;
    }
    wire.call(&Call::new("DELETE", &format!("{NAMESPACE_PATH}/serviceaccounts"))).await?;
    wire.call(&Call::new("DELETE", NAMESPACE_PATH)).await?;
    // No namespace controller runs beside a server that is only recorded.
    let finalize = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "inputs"}, "spec": {}});
    let answer = wire.call(&Call::new("PUT", &format!("{NAMESPACE_PATH}/finalize")).with_json(&finalize)).await?;
    ensure!(answer.code == 200, "the namespace stays: {}", String::from_utf8_lossy(&answer.body));
    Ok(())
}

/// Every object that cases could have changed, with its revision. Fails when the server is not ready.
async fn look(wire: &Wire) -> Result<Vec<String>> {
    let ready = wire.call(&Call::new("GET", "/readyz")).await?;
    ensure!(ready.code == 200, "not ready: {}", String::from_utf8_lossy(&ready.body));
    let mut all = Vec::new();
    for path in WATCHED {
        let list = wire.call(&Call::new("GET", path)).await?.json();
        for item in list["items"].as_array().context("a list has items")? {
            all.push(format!("{path} {} {}", item["metadata"]["name"], item["metadata"]["resourceVersion"]));
        }
    }
    Ok(all)
}

fn parse(text: &str) -> Result<Vec<Case>> {
    let mut parts = text.split("\n### ");
    // Before the first case stands what the file is about.
    parts.next();
    parts.map(|part| parse_case(part).with_context(|| part.lines().next().unwrap_or_default().to_owned())).collect()
}

fn parse_case(part: &str) -> Result<Case> {
    let (what, rest) = part.split_once('\n').context("no request")?;
    let (written, expected) = match rest.split_once("-->\n") {
        Some((written, expected)) => (written, expected),
        None => (rest, ""),
    };
    let written = format!("{}\n", written.trim_end_matches('\n'));
    let (head, body) = written.split_once("\n\n").unwrap_or((&written, ""));
    let mut lines = head.lines().peekable();
    let (mut loose, mut owed) = (Vec::new(), Vec::new());
    while let Some(directive) = lines.next_if(|line| line.starts_with(['@', '#'])) {
        if directive.starts_with('#') {
            continue;
        }
        let (name, line) = directive.split_once(' ').context("a directive names a line")?;
        let lines = if name == "@owed" { &mut owed } else { &mut loose };
        lines.push(line.to_owned());
    }
    let (method, path) = lines.next().and_then(|line| line.split_once(' ')).context("no method and path")?;
    let body = unescape(body.strip_suffix('\n').unwrap_or(body))?;
    let path = String::from_utf8(unescape(path)?)?;
    let path = if path.starts_with('/') { path } else { format!("{NAMESPACE_PATH}/{path}") };
    let mut call = Call { method: method.to_owned(), path, headers: Vec::new(), body: Bytes::from(body) };
    let mut types = 0;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        types += usize::from(name == "content-type");
        if !value.trim().is_empty() {
            call = call.header(name, &String::from_utf8(unescape(value.trim())?)?);
        }
    }
    if types == 0 && !call.body.is_empty() {
        call = call.header("content-type", "application/json");
    }
    let expected = format!("{}\n", expected.trim_end_matches('\n'));
    Ok(Case { what: what.to_owned(), written, loose, owed, call, expected })
}

/// Bytes and repetitions spelled out.
fn unescape(text: &str) -> Result<Vec<u8>> {
    let text = text.replace("\\\n", "");
    let mut out = Vec::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("<<").into_iter().chain(rest.find("\\x")).min() {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let (head, tail) = rest[at..].split_at(2);
        if head == "<<" {
            let (inside, after) = tail.split_once(">>").context("a repetition without an end")?;
            let (what, times) = inside.rsplit_once('*').context("a repetition without a number")?;
            out.extend_from_slice(what.repeat(times.parse()?).as_bytes());
            rest = after;
        } else {
            out.push(u8::from_str_radix(tail.get(..2).context("half a byte")?, 16)?);
            rest = &tail[2..];
        }
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

/// The answer in lines: what a client can act upon.
fn tell(answer: &Answer) -> String {
    let status = answer.json();
    let mut lines = Vec::new();
    if status["kind"] == "Status" && answer.code >= 400 {
        lines.push(format!("{} {}", answer.code, text(&status["reason"])));
        if status["code"] != answer.code {
            lines.push(format!("code in the body: {}", status["code"]));
        }
        lines.push(format!("message: {}", text(&status["message"])));
        tell_details(&status["details"], &mut lines);
    } else if answer.code >= 400 {
        let body = String::from_utf8_lossy(&answer.body);
        lines.push(answer.code.to_string());
        lines.push(format!("{}: {}", answer.header("content-type"), body.lines().next().unwrap_or_default()));
    } else {
        lines.push(answer.code.to_string());
    }
    for warning in answer.headers.get_all("warning") {
        lines.push(format!("warning: {}", String::from_utf8_lossy(warning.as_bytes())));
    }
    lines.iter().map(|line| format!("{}\n", printable(line).trim_end())).collect()
}

/// The beginning of a line, such that it stays one line of text.
fn printable(line: &str) -> String {
    let escaped = |letter: char| if letter.is_control() { letter.escape_default().to_string() } else { letter.into() };
    line.chars().take(LINE_LETTERS_MAX).map(escaped).collect()
}

fn tell_details(details: &Value, lines: &mut Vec<String>) {
    let said = ["group", "kind", "name", "retryAfterSeconds"].iter().filter(|name| !details[**name].is_null());
    let said: Vec<String> = said.map(|name| format!("{name}={}", text(&details[*name]))).collect();
    if !said.is_empty() {
        lines.push(format!("details: {}", said.join(" ")));
    }
    for cause in details["causes"].as_array().into_iter().flatten() {
        let (reason, field) = (text(&cause["reason"]), text(&cause["field"]));
        lines.push(format!("cause: {reason} {field}: {}", text(&cause["message"])));
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| if value.is_null() { String::new() } else { value.to_string() }, str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_read_as_it_is_meant() {
        let text = "about\n\n### a case\n@loose message\nPOST maps?a=b\ncontent-type: text/plain\nx-a: b\n\n{\\x41<<ab*2>>\n-->\n400 BadRequest\nmessage: no\n\n### next\nGET /readyz\n-->\n200\n";
        let cases = parse(text).unwrap();
        let (first, next) = (&cases[0], &cases[1]);
        assert_eq!(first.call.path, "/api/v1/namespaces/inputs/maps?a=b");
        assert_eq!(first.call.body, "{Aabab");
        assert_eq!(first.call.headers, [("content-type".into(), "text/plain".into()), ("x-a".into(), "b".into())]);
        assert_eq!(judge(first, "400 BadRequest\nmessage: yes\n", true), None);
        assert!(judge(first, "400 Invalid\nmessage: no\n", true).is_some());
        assert_eq!((next.call.path.as_str(), next.call.body.len(), next.expected.as_str()), ("/readyz", 0, "200\n"));
    }

    #[test]
    fn a_mark_that_is_not_needed_is_told() {
        let case =
            |owed: &str| parse_case(&format!("a case\n@owed {owed}\nGET /a\n-->\n400 BadRequest\nmessage: no\n"));
        let (message, all) = (case("message").unwrap(), case("all").unwrap());
        assert_eq!(judge(&message, "400 BadRequest\nmessage: other\n", true), None);
        assert_eq!(judge(&all, "200\n", true), None);
        assert!(judge(&message, "200\n", true).unwrap().starts_with("expected:"));
        assert!(judge(&all, "400 BadRequest\nmessage: no\n", true).unwrap().contains("goes"));
    }

    #[test]
    fn what_no_two_servers_share_is_not_compared() {
        let line = |uid: &str, time: &str, revision: u32| {
            format!(r#"a {{\"uid\":\"{uid}\",\"resourceVersion\":\"{revision}\",\"time\":\"{time}\"}} 7"#)
        };
        let one = line("78cedc38-0d48-4bf5-b216-ee8b0596c77f", "2026-11-21T13:26:21Z", 419);
        let other = line("00000000-0000-4000-8000-00000000000f", "2027-01-01T00:00:00Z", 7);
        assert_eq!(lasting(&one), lasting(&other));
        assert!(lasting(&one).ends_with(" 7"));
        assert_ne!(lasting("limit 7"), lasting("limit 8"));
    }

    #[test]
    fn a_refusal_is_told_with_its_causes() {
        let status = json!({"kind": "Status", "code": 422, "reason": "Invalid", "message": "m", "details": {
            "kind": "K", "causes": [{"reason": "FieldValueInvalid", "field": "a.b", "message": "bad"}]}});
        let answer = Answer { code: 422, headers: hyper::HeaderMap::new(), body: status.to_string().into() };
        assert_eq!(tell(&answer), "422 Invalid\nmessage: m\ndetails: kind=K\ncause: FieldValueInvalid a.b: bad\n");
    }
}
