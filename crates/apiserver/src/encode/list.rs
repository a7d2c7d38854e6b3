//! Lists, made in chunks while they are sent, so that one of any length costs no memory to speak of.

use api::codec::envelope;
use api::codec::sink::JsonText;
use api::codec::wire::{put_bytes, put_head, put_int, varint_length};
use bytes::Bytes;
use meta::Status;
use serde_json::json;

use super::protobuf::open_envelope;

/// About what a chunk of a list in JSON has.
const CHUNK_BYTES: usize = 128 << 10;
/// Room for the item that fills a chunk up.
const CHUNK_ROOM_BYTES: usize = 16 << 10;

/// What a list says besides its items.
#[derive(Clone, Debug, Default)]
pub struct ListHead<'a> {
    pub api_version: &'a str,
    /// Such as `PodList`.
    pub kind: &'a str,
    pub revision: u64,
    /// Empty on the last page.
    pub continue_token: &'a str,
    pub remaining: Option<u64>,
}

impl ListHead<'_> {
    fn revision_text(&self) -> String {
        if self.revision == 0 { String::new() } else { self.revision.to_string() }
    }

    /// `metadata` in JSON, fields in upstream's order.
    pub fn json_metadata(&self) -> String {
        let mut fields = Vec::new();
        if self.revision != 0 {
            fields.push(format!("\"resourceVersion\":\"{}\"", self.revision));
        }
        if !self.continue_token.is_empty() {
            fields.push(format!("\"continue\":{}", json!(self.continue_token)));
        }
        if let Some(remaining) = self.remaining {
            fields.push(format!("\"remainingItemCount\":{remaining}"));
        }
        format!("{{{}}}", fields.join(","))
    }

    fn protobuf_metadata(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, 1, b"");
        put_bytes(&mut out, 2, self.revision_text().as_bytes());
        put_bytes(&mut out, 3, self.continue_token.as_bytes());
        if let Some(remaining) = self.remaining {
            put_int(&mut out, 4, i64::try_from(remaining).unwrap_or(i64::MAX));
        }
        out
    }
}

/// A JSON list, made a chunk at a time. `append` adds one item, as the next value of a list.
pub fn json<I: IntoIterator, A>(
    head: &ListHead<'_>,
    items: I,
    mut append: A,
) -> impl Iterator<Item = Result<Bytes, Status>> + use<I, A>
where
    A: FnMut(&I::Item, &mut JsonText) -> Result<(), Status>,
{
    let (kind, api_version) = (head.kind, head.api_version);
    let mut text = JsonText::with_capacity(CHUNK_BYTES + CHUNK_ROOM_BYTES);
    let opening = format!(
        "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{},\"items\":[",
        head.json_metadata()
    );
    text.out.extend_from_slice(opening.as_bytes());
    let (mut items, mut is_done) = (items.into_iter(), false);
    std::iter::from_fn(move || {
        if is_done {
            return None;
        }
        while text.out.len() < CHUNK_BYTES {
            let Some(item) = items.next() else {
                text.out.extend_from_slice(b"]}\n");
                is_done = true;
                return Some(Ok(std::mem::take(&mut text.out).into()));
            };
            if let Err(status) = append(&item, &mut text) {
                is_done = true;
                return Some(Err(status));
            }
        }
        let mut next = JsonText::with_capacity(CHUNK_BYTES + CHUNK_ROOM_BYTES);
        // The last byte goes along: it shows the next item that it is not the first.
        next.out.extend(text.out.pop());
        Some(Ok(std::mem::replace(&mut text, next).out.into()))
    })
}

/// What a built-in kind's JSON starts with, up to the first field that a list repeats.
pub fn json_item_prefix(api_version: &str, kind: &str) -> String {
    format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",")
}

/// A protobuf list, made a chunk at a time. `envelope` makes that of an item; it is asked twice for each, since the length of
/// the whole comes first.
///
/// # Errors
/// An item has no envelope.
pub fn protobuf<T, E>(
    head: &ListHead<'_>,
    items: Vec<T>,
    envelope: E,
) -> Result<impl Iterator<Item = Result<Bytes, Status>> + use<T, E>, Status>
where
    E: Fn(&T) -> Result<Bytes, Status>,
{
    let message = move |item: &T| {
        open_envelope(&envelope(item)?).ok_or_else(|| Status::internal("an item of a list is no protobuf"))
    };
    let metadata = head.protobuf_metadata();
    let framed = |length: u64| 1 + varint_length(length) + length;
    let mut total = framed(metadata.len() as u64);
    for item in &items {
        total += framed(message(item)?.len() as u64);
    }
    let mut chunk = envelope::head(head.api_version, head.kind, total);
    put_head(&mut chunk, 1, metadata.len() as u64);
    chunk.extend_from_slice(&metadata);
    let (mut items, mut is_done) = (items.into_iter(), false);
    Ok(std::iter::from_fn(move || {
        if is_done {
            return None;
        }
        while chunk.len() < CHUNK_BYTES {
            let Some(item) = items.next() else {
                chunk.extend_from_slice(envelope::TAIL);
                is_done = true;
                return Some(Ok(std::mem::take(&mut chunk).into()));
            };
            match message(&item) {
                Ok(message) => {
                    put_head(&mut chunk, 2, message.len() as u64);
                    chunk.extend_from_slice(&message);
                }
                Err(status) => {
                    is_done = true;
                    return Some(Err(status));
                }
            }
        }
        let next = Vec::with_capacity(CHUNK_BYTES + CHUNK_ROOM_BYTES);
        Some(Ok(std::mem::replace(&mut chunk, next).into()))
    }))
}

#[cfg(test)]
mod tests {
    use api::codec::sink::Sink;

    use super::*;

    fn head() -> ListHead<'static> {
        ListHead { api_version: "v1", kind: "PodList", revision: 7, continue_token: "t\"", remaining: Some(3) }
    }

    /// Items that are a text each.
    fn chunks<'a>(items: &'a [&'a str]) -> impl Iterator<Item = Result<Bytes, Status>> + 'a {
        json(&head(), items, |item, text| text.raw(item.as_bytes()).map_err(Status::internal))
    }

    #[test]
    fn items_are_separated_wherever_a_chunk_ends() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(CHUNK_BYTES));
        let head = concat!(
            r#"{"kind":"PodList","apiVersion":"v1","#,
            r#""metadata":{"resourceVersion":"7","continue":"t\"","remainingItemCount":3},"items":["#
        );
        for items in [&[][..], &["{}"], &["{}", "{}"], &["{}", &long], &[&long, "{}", &long, &long, "{}"]] {
            let made: Vec<Bytes> = chunks(items).collect::<Result<_, _>>().unwrap();
            assert_eq!(String::from_utf8(made.concat()).unwrap(), format!("{head}{}]}}\n", items.join(",")));
            assert!(made.iter().all(|chunk| chunk.len() < 2 * CHUNK_BYTES + CHUNK_ROOM_BYTES));
        }
    }

    #[test]
    fn a_list_ends_where_an_item_cannot_be_shown() {
        let mut made =
            json(&head(), [1, 2, 3], |item, _| if *item == 2 { Err(Status::internal("no")) } else { Ok(()) });
        assert!(made.next().is_some_and(|chunk| chunk.is_err()));
        assert!(made.next().is_none());
    }

    #[test]
    fn protobuf_lists_carry_bare_messages_and_exact_lengths() {
        let mut item = envelope::head("v1", "Pod", 200);
        item.extend(vec![9; 200]);
        let item = Bytes::from(item);
        let list: Vec<Bytes> = protobuf(&head(), vec![item.clone(), item], |item: &Bytes| Ok(item.clone()))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let list = Bytes::from(list.concat());
        assert!(list.ends_with(envelope::TAIL));
        let message = open_envelope(&list).unwrap();
        assert_eq!(&message[..2], [0x0a, 2 + 3 + 4 + 2]);
        assert_eq!(message.len(), 2 + 11 + 2 * (1 + 2 + 200));
        assert!(protobuf(&head(), vec![()], |()| Ok(Bytes::from_static(b"{}"))).is_err());
    }

    #[test]
    fn a_protobuf_list_is_the_same_in_chunks() {
        let item = |length: usize| Bytes::from(envelope::write("v1", "Pod", &vec![9; length]));
        let items: Vec<Bytes> = [10, CHUNK_BYTES, 0, 2 * CHUNK_BYTES, 200].map(item).into();
        let made = protobuf(&head(), items.clone(), |item: &Bytes| Ok(item.clone())).unwrap();
        let made: Vec<Bytes> = made.collect::<Result<_, _>>().unwrap();
        assert!(made.len() > 2);
        let whole = open_envelope(&Bytes::from(made.concat())).unwrap();
        let mut reader = api::codec::wire::Reader::new(&whole, 0);
        let mut messages = Vec::new();
        while let Some((number, payload)) = reader.field().unwrap() {
            messages.push((number, payload.bytes().len()));
        }
        let lengths = [10, CHUNK_BYTES, 0, 2 * CHUNK_BYTES, 200].map(|length| (2, length));
        assert_eq!(messages[1..], lengths);
    }
}
