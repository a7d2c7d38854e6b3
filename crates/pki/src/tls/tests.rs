//! Handshakes in memory: who is let in, and renewal under way.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustls_pki_types::{CertificateDer, ServerName};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::{Authority, CertRequest, Usages, peer};

fn authority(name: &str) -> Authority {
    Authority::generate(name, &Clock::system()).unwrap()
}

fn live(authority: &Authority, request: &CertRequest) -> Arc<LiveCertificate> {
    LiveCertificate::new(&authority.issue(request, &Clock::system()).unwrap()).unwrap()
}

fn server_request() -> CertRequest {
    CertRequest::server("kube-apiserver", &["kubernetes.default.svc"], &["127.0.0.1".parse().unwrap()])
}

/// What each side saw of the other: the server's certificate, and the client's if it showed one.
type Seen = (CertificateDer<'static>, Option<CertificateDer<'static>>);

async fn handshake(server: Arc<ServerConfig>, client: Arc<ClientConfig>, name: &str) -> std::io::Result<Seen> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let name = ServerName::try_from(name.to_string()).unwrap();
    let accept = async {
        let accepted = TlsAcceptor::from(server).accept(far).await?;
        let shown = accepted.get_ref().1.peer_certificates().map(|chain| chain[0].clone().into_owned());
        Ok::<_, std::io::Error>(shown)
    };
    let connect = TlsConnector::from(client).connect(name, near);
    let (shown, connected) = tokio::join!(accept, connect);
    // The refusing side knows why, the other one only that it was refused; a client that is refused notices late.
    let connected = connected?;
    let shown = shown?;
    Ok((connected.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned(), shown))
}

#[tokio::test]
async fn a_client_certificate_names_its_user_and_groups() {
    let ours = authority("kubernetes-ca");
    let server = server_config(live(&ours, &server_request()), &ours.certificate_pem(), &Clock::system()).unwrap();
    let admin = live(&ours, &CertRequest::client("kubernetes-admin", &["system:masters", "second:group"]));
    let client = client_config(&ours.certificate_pem(), Some(admin), &Clock::system()).unwrap();
    for name in ["127.0.0.1", "kubernetes.default.svc"] {
        let (_, shown) = handshake(server.clone(), client.clone(), name).await.unwrap();
        let subject = peer::identity(&shown.unwrap(), &Clock::system()).unwrap();
        assert_eq!(subject.common_name, "kubernetes-admin");
        assert_eq!(subject.organizations, ["system:masters", "second:group"]);
    }
    let error = handshake(server, client, "other.example").await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn only_the_unverified_client_talks_to_a_stranger() {
    let (ours, theirs) = (authority("kubernetes-ca"), authority("kubernetes-ca"));
    let stranger = live(&theirs, &server_request());
    let server = server_config(stranger, &theirs.certificate_pem(), &Clock::system()).unwrap();
    let (seen, _) = handshake(server.clone(), unverified_client_config(), "not-its-name.example").await.unwrap();
    assert_eq!(CertificateFacts::from_der(&seen).unwrap().common_name, "kube-apiserver");
    let client = client_config(&ours.certificate_pem(), None, &Clock::system()).unwrap();
    assert!(handshake(server, client, "127.0.0.1").await.is_err());
}

#[tokio::test]
async fn without_a_certificate_one_is_let_in_and_with_a_bad_one_not() {
    let (ours, theirs) = (authority("kubernetes-ca"), authority("kubernetes-ca"));
    let server = server_config(live(&ours, &server_request()), &ours.certificate_pem(), &Clock::system()).unwrap();
    let client = |certificate| client_config(&ours.certificate_pem(), certificate, &Clock::system()).unwrap();
    let (_, shown) = handshake(server.clone(), client(None), "127.0.0.1").await.unwrap();
    assert_eq!(shown, None);

    let request = CertRequest::client("mallory", &["system:masters"]);
    let old = Clock::simulated("2020-01-01T00:00:00Z".parse().unwrap());
    let old_authority = Authority::generate("kubernetes-ca", &old).unwrap();
    let expired = old_authority.issue(&request, &old).unwrap();
    let bad = [
        (ours.certificate_pem(), live(&theirs, &request), "of another authority"),
        (
            ours.certificate_pem(),
            live(&ours, &CertRequest { usages: Usages::server(), ..request.clone() }),
            "a server's",
        ),
        (old_authority.certificate_pem(), LiveCertificate::new(&expired).unwrap(), "expired"),
    ];
    for (authorities, certificate, what) in bad {
        let server = server_config(live(&ours, &server_request()), &authorities, &Clock::system()).unwrap();
        assert!(handshake(server, client(Some(certificate)), "127.0.0.1").await.is_err(), "{what}");
    }
    let foreign = client_config(&theirs.certificate_pem(), None, &Clock::system()).unwrap();
    assert!(handshake(server, foreign, "127.0.0.1").await.is_err(), "a server of another authority");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_at_two_thirds_of_its_life_and_tried_again_on_failure() {
    let ours = Arc::new(authority("kubernetes-ca"));
    let clock = Clock::simulated(base::Timestamp::now());
    let request = CertRequest { validity: Duration::from_secs(3600), ..server_request() };
    let certificate = LiveCertificate::new(&ours.issue(&request, &clock).unwrap()).unwrap();
    let first = certificate.facts().unwrap();
    let server = server_config(certificate.clone(), &ours.certificate_pem(), &clock).unwrap();
    let client = client_config(&ours.certificate_pem(), None, &clock).unwrap();
    let (before, _) = handshake(server.clone(), client.clone(), "127.0.0.1").await.unwrap();

    let (tasks, calls) = (Tasks::root(), Arc::new(AtomicUsize::new(0)));
    let (issuer, at, counted) = (ours.clone(), clock.clone(), calls.clone());
    let (renewed, mut was_renewed) = tokio::sync::mpsc::unbounded_channel();
    certificate.keep_fresh("test", clock.clone(), &tasks, move || {
        let call = counted.fetch_add(1, Ordering::SeqCst);
        renewed.send(at.now()).unwrap();
        let outcome = if call == 0 { Err(PkiError::Crypto("not today")) } else { issuer.issue(&request, &at) };
        async move { outcome }
    });
    let tried = was_renewed.recv().await.unwrap();
    let late = tried.as_second() - first.renew_at().as_second();
    assert!((0..2).contains(&late), "tried {late} s after two thirds");
    was_renewed.recv().await.unwrap();
    tokio::task::yield_now().await;
    let (after, _) = handshake(server, client, "127.0.0.1").await.unwrap();
    assert_ne!(before, after, "the same configuration serves the new one");
    assert!(certificate.facts().unwrap().not_after > first.not_after);
    tasks.shutdown().await;
}
