//! Feeders over real sockets, questions over loopback.

use std::net::SocketAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::server::tests::{in_time, question, show, udp};
use crate::view::{Meaning, Port, Service};

struct Lab {
    dir: tempfile::TempDir,
    settings: Settings,
    address: SocketAddr,
    process: tokio::task::JoinHandle<io::Result<()>>,
}

fn start() -> Lab {
    let dir = tempfile::tempdir().unwrap();
    let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = sockets.address().unwrap();
    let settings = Settings {
        build: "this one".into(),
        domain: "cluster.local".into(),
        listen: vec![address],
        upstream: String::new(),
    };
    let listener = listen(&dir.path().join("sock")).unwrap();
    let process = tokio::spawn(serve(settings.clone(), vec![sockets], listener));
    Lab { dir, settings, address, process }
}

impl Lab {
    async fn connect(&self) -> UnixStream {
        let mut feeder = UnixStream::connect(self.dir.path().join("sock")).await.unwrap();
        assert_eq!(in_time(hear(&mut feeder)).await.unwrap(), Some(Word::Hello(self.settings.clone())));
        feeder
    }

    /// A feeder that has told a zone with this one service.
    async fn feed(&self, name: &str) -> UnixStream {
        let mut feeder = self.connect().await;
        say(&mut feeder, &service(name, true)).await.unwrap();
        say(&mut feeder, &Order::Swap).await.unwrap();
        assert_eq!(in_time(hear(&mut feeder)).await.unwrap(), Some(Word::Serving));
        feeder
    }

    async fn ask(&self, name: &str) -> String {
        show(&udp(self.address, &question(&format!("{name}.default.svc.cluster.local."), RecordType::A)).await)
    }
}

fn service(name: &str, exists: bool) -> Order {
    let ports = vec![Port { name: String::new(), protocol: "tcp".into(), port: 80 }];
    let meaning = Meaning::Addresses(vec![[10, 43, 0, 7].into()]);
    let service = exists.then(|| Arc::new(Service { meaning, ports }));
    Order::Change(vec![Entry::Service { namespace: "default".into(), name: name.into(), service }])
}

async fn gone(mut feeder: UnixStream) {
    assert_eq!(in_time(feeder.read(&mut [0; 1])).await.unwrap_or(0), 0, "it is sent away");
}

const THERE: &str = "No Error 10.43.0.7";

#[tokio::test]
async fn without_its_feeder_it_answers_on() {
    let lab = start();
    let mut feeder = lab.feed("web").await;
    say(&mut feeder, &service("late", true)).await.unwrap();
    in_time(async { while lab.ask("late").await != THERE {} }).await;
    drop(feeder);
    // Taken after the feeder's end was seen.
    drop(lab.connect().await);
    assert_eq!((lab.ask("web").await, lab.ask("late").await), (THERE.into(), THERE.into()));
}

#[tokio::test]
async fn questions_wait_for_the_first_zone() {
    let lab = start();
    let early = tokio::spawn(udp(
        lab.address,
        &*Box::leak(Box::new(question("web.default.svc.cluster.local.", RecordType::A))),
    ));
    let _feeder = lab.feed("web").await;
    assert_eq!(show(&early.await.unwrap()), THERE);
}

#[tokio::test]
async fn a_feeder_that_comes_back_changes_the_whole_zone_in_one_go() {
    let lab = start();
    drop(lab.feed("old").await);
    let mut feeder = lab.connect().await;
    say(&mut feeder, &service("new", true)).await.unwrap();
    say(&mut feeder, &service("newer", true)).await.unwrap();
    for _ in 0..20 {
        assert_eq!(lab.ask("old").await, THERE, "the old zone stands until the new one is complete");
    }
    assert!(!lab.ask("new").await.contains("10.43"));
    say(&mut feeder, &Order::Swap).await.unwrap();
    assert_eq!(in_time(hear(&mut feeder)).await.unwrap(), Some(Word::Serving));
    assert_eq!((lab.ask("new").await, lab.ask("newer").await), (THERE.into(), THERE.into()));
    let old = udp(lab.address, &question("old.default.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(old.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn who_speaks_nonsense_is_sent_away_and_changes_nothing() {
    let lab = start();
    let mut feeder = lab.feed("web").await;
    for junk in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 64],
        // A frame too long to be taken, one of another kind, and JSON that is no order.
        &[0, 0xff, 0xff, 0xff, 0xff],
        &[1, 0, 0, 0, 1, b'0'],
        b"\0\0\0\0\x09{\"A\":[1]}",
        // A frame that ends before its end.
        b"\0\0\0\0\x09{",
    ] {
        let mut peer = lab.connect().await;
        say(&mut peer, &service("evil", true)).await.unwrap();
        peer.write_all(junk).await.unwrap();
        peer.shutdown().await.unwrap();
        gone(peer).await;
    }
    assert_eq!(lab.ask("web").await, THERE);
    assert!(!lab.ask("evil").await.contains("10.43"));
    say(&mut feeder, &service("web", false)).await.unwrap();
    in_time(async { while lab.ask("web").await == THERE {} }).await;
}

#[tokio::test]
async fn only_the_last_to_tell_a_zone_may_change_it() {
    let lab = start();
    let mut first = lab.feed("web").await;
    let mut second = lab.feed("web").await;
    say(&mut first, &service("web", false)).await.unwrap();
    gone(first).await;
    assert_eq!(lab.ask("web").await, THERE);
    say(&mut second, &Order::Swap).await.unwrap();
    gone(second).await;
    assert_eq!(lab.ask("web").await, THERE);
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_does_not_keep_others_out() {
    let lab = start();
    let mut silent = Vec::new();
    for _ in 0..FEEDERS_MAX {
        silent.push(lab.connect().await);
    }
    let _feeder = lab.feed("web").await;
    assert_eq!(lab.ask("web").await, THERE);
}

#[tokio::test]
async fn it_ends_when_told_and_lets_go_of_its_address_before_it_says_so() {
    let lab = start();
    let mut feeder = lab.feed("web").await;
    say(&mut feeder, &Order::End).await.unwrap();
    gone(feeder).await;
    Sockets::bind(lab.address).unwrap();
    lab.process.await.unwrap().unwrap();
}
