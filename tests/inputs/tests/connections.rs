//! Connections that misbehave, and callers whose certificates and tokens are not good: refused, let go of, and nobody else
//! notices.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use inputs::{Answer, Call, Server, Wire};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// More than enough for any answer; what takes longer hangs.
const WAIT: Duration = Duration::from_secs(20);
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const QUIET: [&str; 2] = ["--without", "controllers,scheduler"];

fn told(outcome: Result<()>) {
    if let Err(error) = outcome {
        panic!("{error:#}");
    }
}

async fn is_healthy(wire: &Wire) -> Result<()> {
    let ready = wire.call(&Call::new("GET", "/readyz")).await?;
    ensure!(ready.code == 200, "not ready: {}", String::from_utf8_lossy(&ready.body));
    let list = wire.call(&Call::new("GET", MAPS)).await?.json();
    ensure!(list["items"].as_array().is_some_and(Vec::is_empty), "something was stored: {list}");
    Ok(())
}

fn is_unauthorized(answer: &Answer) -> bool {
    let status = answer.json();
    answer.code == 401 && status["reason"] == "Unauthorized" && status["message"] == "Unauthorized"
}

/// Everything that the server sends until it closes; an error when it does neither.
async fn rest_of(mut stream: impl AsyncReadExt + Unpin, what: &str) -> Result<String> {
    let mut all = Vec::new();
    // How a connection ends is the server's choice: TCP and TLS have several ways, all of them are ends.
    tokio::time::timeout(WAIT, stream.read_to_end(&mut all)).await.with_context(|| format!("{what} hangs"))?.ok();
    Ok(String::from_utf8_lossy(&all).into_owned())
}

#[tokio::test]
async fn requests_that_are_none_are_answered_or_let_go() {
    told(requests_that_are_none().await);
}

async fn requests_that_are_none() -> Result<()> {
    let server = Server::start_own(&QUIET)?;
    let wire = server.admin()?;
    let many_headers = format!("GET /readyz HTTP/1.1\r\nhost: a\r\n{}\r\n", "a: b\r\n".repeat(5000));
    let long_path = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(1 << 20));
    for (what, sent, begins) in [
        ("no HTTP", "nonsense\r\n\r\n", "HTTP/1.1 400"),
        ("a version nobody speaks", "GET / HTTP/9.9\r\n\r\n", "HTTP/1.1 400"),
        ("a header without a colon", "GET / HTTP/1.1\r\nhost a\r\n\r\n", "HTTP/1.1 400"),
        ("a length that is no number", "POST /api HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n", "HTTP/1.1 400"),
        ("a negative length", "POST /api HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n", "HTTP/1.1 400"),
        (
            "two lengths",
            "POST /api HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            "HTTP/1.1 400",
        ),
        ("a zero byte in a header", "GET / HTTP/1.1\r\nhost: a\r\nb: \0\r\n\r\n", "HTTP/1.1 400"),
        ("5,000 headers", &many_headers, "HTTP/1.1 431"),
        ("a path of 1 MiB", &long_path, "HTTP/1.1 4"),
        ("the beginning of HTTP/2 and then none", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense nonsense", ""),
    ] {
        let mut stream = wire.connect().await?;
        // The server may close before everything is written.
        stream.write_all(sent.as_bytes()).await.ok();
        let answer = rest_of(stream, what).await?;
        ensure!(answer.starts_with(begins), "{what}: {:?}", answer.chars().take(200).collect::<String>());
        is_healthy(&wire).await.context(what)?;
    }
    server.stop().map(drop)
}

#[tokio::test]
async fn a_body_that_does_not_come_stores_nothing_and_holds_up_nobody() {
    told(half_sent().await);
}

async fn half_sent() -> Result<()> {
    let server = Server::start_own(&QUIET)?;
    let wire = server.admin()?;
    let head = |more: &str| format!("POST {MAPS} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n{more}\r\n");
    let whole = r#"{"metadata":{"name":"half"}}"#;
    let mut open = Vec::new();
    for (what, sent) in [
        ("half a head", format!("POST {MAPS} HTTP/1.1\r\nhost: a\r\n")),
        ("a body that never begins", head("content-length: 100\r\n")),
        ("half a body", format!("{}{whole}", head("content-length: 100\r\n"))),
        ("half a chunk", format!("{}40\r\n{whole}", head("transfer-encoding: chunked\r\n"))),
        ("chunks without an end", format!("{}1c\r\n{whole}\r\n", head("transfer-encoding: chunked\r\n"))),
        ("nothing at all", String::new()),
    ] {
        let mut stream = wire.connect().await?;
        stream.write_all(sent.as_bytes()).await?;
        stream.flush().await?;
        is_healthy(&wire).await.context(what)?;
        // One is cut off at once, its twin stays open to the end.
        let mut twin = wire.connect().await?;
        twin.write_all(sent.as_bytes()).await?;
        twin.shutdown().await?;
        drop(twin);
        open.push(stream);
        is_healthy(&wire).await.context(what)?;
    }
    let bad = format!("{}zz\r\n{whole}", head("transfer-encoding: chunked\r\n"));
    let mut stream = wire.connect().await?;
    stream.write_all(bad.as_bytes()).await?;
    let answer = rest_of(stream, "a chunk whose size is no number").await?;
    ensure!(!answer.starts_with("HTTP/1.1 2"), "a chunk whose size is no number: {answer}");
    is_healthy(&wire).await?;
    drop(open);
    is_healthy(&wire).await?;
    server.stop().map(drop)
}

#[tokio::test]
async fn idle_connections_hold_up_nobody() {
    told(idle().await);
}

async fn idle() -> Result<()> {
    let server = Server::start_own(&QUIET)?;
    let wire = server.admin()?;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(wire.address()).await?);
    }
    let mut shaken = Vec::new();
    for _ in 0..50 {
        shaken.push(wire.connect().await?);
    }
    is_healthy(&wire).await?;
    let mut plain = TcpStream::connect(wire.address()).await?;
    plain.write_all(b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n").await?;
    let answer = rest_of(plain, "HTTP without TLS").await?;
    ensure!(!answer.contains("ok"), "HTTP without TLS is answered: {answer}");
    is_healthy(&wire).await?;
    server.stop().map(drop)
}

#[tokio::test]
async fn bodies_beyond_the_limit_are_refused_however_they_come() {
    told(too_large().await);
}

async fn too_large() -> Result<()> {
    let server = Server::start_own(&QUIET)?;
    let wire = server.admin()?;
    // Said beforehand: refused without waiting for what will not come.
    let head = format!("POST {MAPS} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nconnection: close\r\n");
    let mut stream = wire.connect().await?;
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, " ".repeat(1 << 20));
    stream.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await?;
    for _ in 0..4 {
        stream.write_all(chunk.as_bytes()).await?;
    }
    stream.write_all(b"0\r\n\r\n").await?;
    let answer = rest_of(stream, "chunks of 4 MiB").await?;
    ensure!(answer.starts_with("HTTP/1.1 413"), "chunks of 4 MiB: {answer}");
    ensure!(answer.contains("\"reason\":\"RequestEntityTooLarge\""), "chunks of 4 MiB: {answer}");
    is_healthy(&wire).await?;
    server.stop().map(drop)
}

#[tokio::test]
async fn certificates_that_are_not_good_let_nobody_in() {
    told(certificates().await);
}

async fn certificates() -> Result<()> {
    let server = Server::start_own(&QUIET)?;
    let wire = server.admin()?;
    let pki = server.data_dir().context("our own server has a data folder")?.join("pki");
    let authority_pem = std::fs::read_to_string(pki.join("ca.crt"))?;
    let authority_key = KeyPair::from_pem(&std::fs::read_to_string(pki.join("ca.key"))?)?;
    let authority = Issuer::from_ca_cert_pem(&authority_pem, authority_key)?;
    let other_key = KeyPair::generate()?;
    let mut other = CertificateParams::default();
    other.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    other.distinguished_name.push(DnType::CommonName, "kubernetes-ca");
    let other = Issuer::new(other, other_key);
    let good = administrator();
    let mut expired = administrator();
    (expired.not_before, expired.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 2, 1));
    let mut early = administrator();
    (early.not_before, early.not_after) = (date_time_ymd(2090, 1, 1), date_time_ymd(2090, 2, 1));
    let mut serving = administrator();
    serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // The control: the same certificate by the right authority and in its dates is let in.
    let answer = show(&wire, &good, &authority).await?.context("a good certificate is refused")?;
    ensure!(answer.code == 200, "a good certificate: {answer:?}");
    for (what, certificate, issuer) in [
        ("of another authority", &good, &other),
        ("expired", &expired, &authority),
        ("not valid yet", &early, &authority),
        ("of a server", &serving, &authority),
    ] {
        // Upstream answers 401; to end the handshake with an alert is as good.
        if let Some(answer) = show(&wire, certificate, issuer).await? {
            ensure!(is_unauthorized(&answer), "a certificate {what}: {answer:?}");
        }
        is_healthy(&wire).await.with_context(|| what.to_owned())?;
    }
    server.stop().map(drop)
}

fn administrator() -> CertificateParams {
    let mut wanted = CertificateParams::default();
    wanted.distinguished_name.push(DnType::CommonName, "intruder");
    wanted.distinguished_name.push(DnType::OrganizationName, "system:masters");
    wanted.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    wanted
}

/// What a caller with this certificate is answered; none when the handshake fails.
async fn show(wire: &Wire, wanted: &CertificateParams, issuer: &Issuer<'_, KeyPair>) -> Result<Option<Answer>> {
    let key = KeyPair::generate()?;
    let certificate = wanted.clone().signed_by(&key, issuer)?;
    let wire = wire.showing(certificate.pem().as_bytes(), key.serialize_pem().as_bytes())?;
    match wire.call(&Call::new("GET", MAPS)).await {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if format!("{error:#}").contains("hangs") => Err(error),
        Err(_) => Ok(None),
    }
}

#[tokio::test]
async fn tokens_that_are_not_good_let_nobody_in() {
    told(tokens().await);
}

async fn tokens() -> Result<()> {
    let server = Server::start_own(&QUIET)?;
    let admin = server.admin()?;
    let wire = admin.without_certificate()?;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let made = admin.call(&Call::new("POST", accounts).with_json(&json!({"metadata": {"name": "a"}}))).await?;
    ensure!(made.code == 201, "a service account: {made:?}");
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let minted = admin.call(&Call::new("POST", &format!("{accounts}/a/token")).with_json(&request)).await?.json();
    let good = minted["status"]["token"].as_str().with_context(|| format!("no token: {minted}"))?.to_owned();
    let [head, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else {
        anyhow::bail!("the token has not three parts");
    };
    let unsigned = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let forged = URL_SAFE_NO_PAD.encode(r#"{"iss":"x","sub":"system:serviceaccount:kube-system:default","aud":["x"]}"#);
    // The control: the token itself is known, and only lacks rights.
    let answer = bear(&wire, &format!("Bearer {good}")).await?;
    ensure!(answer.code == 403, "a good token: {answer:?}");
    let cases = [
        ("garbage", "Bearer garbage".to_owned()),
        ("a bootstrap token of nobody", "Bearer abcdef.0123456789abcdef".to_owned()),
        ("three parts of nothing", "Bearer a.b.c".to_owned()),
        ("another signature", format!("Bearer {head}.{claims}.{}", signature.chars().rev().collect::<String>())),
        ("no signature", format!("Bearer {head}.{claims}.")),
        ("no algorithm", format!("Bearer {unsigned}.{claims}.")),
        ("claims of another", format!("Bearer {head}.{forged}.{signature}")),
        ("a token of 100 KiB", format!("Bearer {}", "a".repeat(100 << 10))),
    ];
    for (what, header) in cases {
        let answer = bear(&wire, &header).await.with_context(|| what.to_owned())?;
        ensure!(is_unauthorized(&answer), "{what}: {answer:?}");
    }
    let gone = admin.call(&Call::new("DELETE", &format!("{accounts}/a"))).await?;
    ensure!(gone.code == 200, "deleting the account: {gone:?}");
    let answer = bear(&wire, &format!("Bearer {good}")).await?;
    ensure!(is_unauthorized(&answer), "the token of an account that is gone: {answer:?}");
    strangers(&wire).await?;
    is_healthy(&admin).await?;
    server.stop().map(drop)
}

async fn bear(wire: &Wire, header: &str) -> Result<Answer> {
    wire.call(&Call::new("GET", MAPS).header("authorization", header)).await
}

/// Who shows nothing that is understood is anonymous, and may do next to nothing.
async fn strangers(wire: &Wire) -> Result<()> {
    let anonymous = r#"configmaps is forbidden: User "system:anonymous" cannot list resource "configmaps" in API group "" in the namespace "default""#;
    for header in ["", "Basic YTpi", "Bearer", "Bearer ", "Nonsense a b c"] {
        let mut call = Call::new("GET", MAPS);
        if !header.is_empty() {
            call = call.header("authorization", header);
        }
        let answer = wire.call(&call).await?;
        let message = answer.json()["message"].clone();
        ensure!(is_unauthorized(&answer) || (answer.code == 403 && message == anonymous), "{header:?}: {answer:?}");
    }
    let open = wire.call(&Call::new("GET", "/readyz")).await?;
    ensure!(open.code == 200, "health is open to all: {open:?}");
    Ok(())
}

/// One server, many bad callers at once: each gets its own answer.
#[tokio::test]
async fn a_crowd_of_bad_callers_holds_up_nobody() {
    told(crowd().await);
}

async fn crowd() -> Result<()> {
    let server = Server::start_own(&QUIET)?;
    let wire = Arc::new(server.admin()?);
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..64 {
        let wire = wire.clone();
        callers.spawn(async move {
            let mut call = Call::new("POST", MAPS).header("content-type", "application/json");
            call.body = match number % 4 {
                0 => "{".into(),
                1 => "[".repeat(100_000).into(),
                2 => " ".repeat(4 << 20).into(),
                _ => r#"{"metadata":{"name":"A"}}"#.into(),
            };
            let answer = wire.call(&call).await?;
            anyhow::Ok((number % 4, answer.code))
        });
    }
    while let Some(outcome) = callers.join_next().await {
        let (sort, code) = outcome??;
        let expected = [400, 400, 413, 422][sort];
        ensure!(code == expected, "caller of sort {sort}: {code}");
    }
    is_healthy(&wire).await?;
    server.stop().map(drop)
}
