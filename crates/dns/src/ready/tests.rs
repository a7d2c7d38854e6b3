//! Which questions are plain, and which answers can be said again.

use hickory_proto::op::{Edns, Message, MessageType, OpCode};
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{RData, Record, RecordType};

use super::*;
use crate::server::tests::{name, question};

const OWN: &str = "web.default.svc.cluster.local.";

fn bytes(change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = question(OWN, RecordType::A);
    change(&mut message);
    message.to_vec().unwrap()
}

#[test]
fn only_one_whole_question_is_plain() {
    let asked = bytes(|_| {});
    assert_eq!(plain(&asked), Some(asked.len()));
    let wide = bytes(|message| {
        message.edns.insert(Edns::new()).set_max_payload(1232);
    });
    assert_eq!(plain(&wide), Some(asked.len()));
    for cut in 0..asked.len() {
        assert_eq!(plain(&asked[..cut]), None, "cut to {cut}");
    }
    for cut in asked.len() + 1..wide.len() {
        assert_eq!(plain(&wide[..cut]), None, "cut to {cut}");
    }
    let with = |at: usize, byte: u8| {
        let mut changed = asked.clone();
        changed[at] = byte;
        changed
    };
    let longer = |more: &[u8]| [&asked, more].concat();
    let mut endless = with(asked.len() - 5, 200);
    endless.extend([1; 300]);
    for (why, message) in [
        ("an answer", with(2, 0x81)),
        ("another operation", with(2, 0x29)),
        ("cut", with(2, 0x03)),
        ("no question", with(5, 0)),
        ("two questions", with(5, 2)),
        ("an answer in it", with(7, 1)),
        ("a record of authority", with(9, 1)),
        ("a record that is not there", with(11, 1)),
        ("a name that points", with(12, 0xc0)),
        ("a label that is too long", endless),
        ("another class", with(asked.len() - 1, 3)),
        ("more than it says", longer(&[0])),
    ] {
        assert_eq!(plain(&message), None, "{why}");
    }
    let mut long = asked[..12].to_vec();
    (0..5).for_each(|_| long.extend([&[63][..], &[b'a'; 63]].concat()));
    long.extend([0, 0, 1, 0, 1]);
    assert_eq!(plain(&long), None, "a name that is too long");
}

fn answer(records: Vec<Record>) -> Vec<u8> {
    let mut message = question(OWN, RecordType::A);
    message.metadata.message_type = MessageType::Response;
    message.answers = records;
    message.to_vec().unwrap()
}

fn address(owner: &str, last: u8) -> Record {
    Record::from_rdata(name(owner), 5, RData::A(A::new(10, 43, 0, last)))
}

fn alias(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 5, RData::CNAME(CNAME(name(target))))
}

fn kept(answer: &[u8]) -> Ready {
    let mut ready = Ready::default();
    ready.keep(&bytes(|_| {}), answer);
    ready
}

#[test]
fn what_is_kept_is_said_again_with_the_number_of_who_asks() {
    let said = answer(vec![address(OWN, 1)]);
    let ready = kept(&said);
    let mut asked = bytes(|_| {});
    asked[..2].copy_from_slice(&[1, 2]);
    let mut out = Vec::new();
    assert!(ready.answer(&asked, &mut out));
    assert_eq!((&out[..2], &out[2..]), (&[1, 2][..], &said[2..]));
    asked[13] = b'W';
    assert!(!ready.answer(&asked, &mut out), "another spelling");
    assert!(!ready.answer(&[], &mut out) && !ready.answer(&[0], &mut out));
}

#[test]
fn addresses_take_turns_and_nothing_else_does() {
    let target = "few.default.svc.cluster.local.";
    for (what, records, fixed) in [
        ("addresses", vec![address(OWN, 1), address(OWN, 2), address(OWN, 3)], 0),
        ("behind an alias", vec![alias(OWN, target), address(target, 1), address(target, 2)], 1),
    ] {
        let (said, mut firsts) = (answer(records), std::collections::BTreeSet::new());
        let (ready, whole) = (kept(&said), Message::from_vec(&said).unwrap());
        for _ in 0..100 {
            let mut out = Vec::new();
            assert!(ready.answer(&bytes(|_| {}), &mut out), "{what}");
            let told = Message::from_vec(&out).unwrap();
            assert_eq!(told.answers[..fixed], whole.answers[..fixed], "{what}");
            let (mut sorted, mut expected) = (told.answers.clone(), whole.answers.clone());
            let by_data = |record: &Record| record.to_string();
            sorted.sort_by_key(by_data);
            expected.sort_by_key(by_data);
            assert_eq!(sorted, expected, "{what}");
            firsts.insert(told.answers[fixed].data.to_string());
        }
        assert_eq!(firsts.len(), whole.answers.len() - fixed, "{what}");
    }
}

#[test]
fn what_cannot_be_said_again_is_not_kept() {
    let mut cut = answer(vec![address(OWN, 1)]);
    cut[2] |= CUT;
    let mut other_question = Message::new(7, MessageType::Response, OpCode::Query);
    other_question.queries = question("other.default.svc.cluster.local.", RecordType::A).queries;
    let mut lying = answer(vec![address(OWN, 1)]);
    lying[7] = 9;
    for (why, said) in [
        ("it is cut", cut),
        ("another question", other_question.to_vec().unwrap()),
        ("not all that is said is there", lying),
        ("addresses of several names", answer(vec![address(OWN, 1), address("a.b.", 2), address("a.b.", 3)])),
        ("an alias among addresses", answer(vec![address(OWN, 1), alias(OWN, "a.b."), address(OWN, 2)])),
        ("a question", bytes(|_| {})),
    ] {
        assert!(kept(&said).answers.is_empty(), "{why}");
    }
}

#[test]
fn what_is_kept_is_bounded_and_of_one_state_of_the_zone() {
    let mut ready = Ready::default();
    let ask = |number: u32| question(&format!("a{number}.default.svc.cluster.local."), RecordType::A);
    let said = |number: u32| {
        let mut message = ask(number);
        message.metadata.message_type = MessageType::Response;
        message.answers = vec![address("a.b.", 1)];
        message.to_vec().unwrap()
    };
    let each = ask(100_000).to_vec().unwrap().len() + said(100_000).len();
    let all = u32::try_from(KEPT_BYTES_MAX / each).unwrap() + 2;
    for number in 100_000..100_000 + all {
        ready.keep(&ask(number).to_vec().unwrap(), &said(number));
        assert!(ready.kept_bytes <= KEPT_BYTES_MAX);
    }
    assert!(ready.answers.len() < 10, "{} left after it was full", ready.answers.len());
    let question = ask(100_000 + all - 1).to_vec().unwrap();
    ready.follow(0);
    assert!(ready.answer(&question, &mut Vec::new()));
    ready.follow(1);
    assert!(!ready.answer(&question, &mut Vec::new()));
    assert_eq!(ready.kept_bytes, 0);
}
