//! Lists, as slices: a head, then each item's shared bytes with what goes between them.

use api::codec::envelope;
use api::codec::wire::{put_bytes, put_head, put_int, varint_length};
use bytes::Bytes;
use serde_json::json;

use super::protobuf::open_envelope;

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

/// A JSON list. `item_prefix` is what every item starts with and the list leaves out: built-in kinds do not repeat their
/// `kind` and `apiVersion` in each item.
pub fn json(head: &ListHead<'_>, item_prefix: &str, items: impl Iterator<Item = Bytes>) -> Vec<Bytes> {
    let (kind, api_version) = (head.kind, head.api_version);
    let opening = format!(
        "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{},\"items\":[",
        head.json_metadata()
    );
    let mut slices = vec![Bytes::from(opening)];
    let (first, next) = (Bytes::from_static(b"{"), Bytes::from_static(b",{"));
    for (index, item) in items.enumerate() {
        if !item_prefix.is_empty() && item.starts_with(item_prefix.as_bytes()) {
            slices.push(if index == 0 { first.clone() } else { next.clone() });
            slices.push(item.slice(item_prefix.len()..));
        } else {
            if index > 0 {
                slices.push(Bytes::from_static(b","));
            }
            slices.push(item);
        }
    }
    slices.push(Bytes::from_static(b"]}\n"));
    slices
}

/// What a built-in kind's JSON starts with, up to the first field that a list repeats.
pub fn json_item_prefix(api_version: &str, kind: &str) -> String {
    format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",")
}

/// A protobuf list from the items' envelopes; none when an item is no envelope.
pub fn protobuf(head: &ListHead<'_>, items: impl Iterator<Item = Bytes>) -> Option<Vec<Bytes>> {
    let messages: Vec<Bytes> = items.map(|item| open_envelope(&item)).collect::<Option<_>>()?;
    let metadata = head.protobuf_metadata();
    let framed = |length: u64| 1 + varint_length(length) + length;
    let total = framed(metadata.len() as u64) + messages.iter().map(|item| framed(item.len() as u64)).sum::<u64>();
    let mut opening = envelope::head(head.api_version, head.kind, total);
    put_head(&mut opening, 1, metadata.len() as u64);
    opening.extend_from_slice(&metadata);
    let mut slices = vec![Bytes::from(opening)];
    for message in messages {
        let mut item_head = Vec::with_capacity(6);
        put_head(&mut item_head, 2, message.len() as u64);
        slices.push(item_head.into());
        slices.push(message);
    }
    slices.push(Bytes::from_static(envelope::TAIL));
    Some(slices)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> ListHead<'static> {
        ListHead { api_version: "v1", kind: "PodList", revision: 7, continue_token: "t\"", remaining: Some(3) }
    }

    fn joined(slices: Vec<Bytes>) -> Vec<u8> {
        slices.concat()
    }

    #[test]
    fn json_items_of_built_in_kinds_do_not_repeat_their_kind() {
        let prefix = json_item_prefix("v1", "Pod");
        let items =
            [r#"{"kind":"Pod","apiVersion":"v1","metadata":{}}"#, r#"{"kind":"Pod","apiVersion":"v1","spec":{}}"#];
        let list = joined(json(&head(), &prefix, items.iter().map(|item| Bytes::from_static(item.as_bytes()))));
        assert_eq!(
            String::from_utf8(list).unwrap(),
            concat!(
                r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7","continue":"t\"","remainingItemCount":3},"#,
                r#""items":[{"metadata":{}},{"spec":{}}]}"#,
                "\n"
            )
        );
        let empty =
            joined(json(&ListHead { kind: "PodList", api_version: "v1", ..ListHead::default() }, "", [].into_iter()));
        assert_eq!(empty, b"{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{},\"items\":[]}\n");
    }

    #[test]
    fn protobuf_lists_carry_bare_messages_and_exact_lengths() {
        let mut item = envelope::head("v1", "Pod", 200);
        item.extend(vec![9; 200]);
        let item = Bytes::from(item);
        let list = Bytes::from(joined(protobuf(&head(), [item.clone(), item].into_iter()).unwrap()));
        assert!(list.ends_with(envelope::TAIL));
        let message = open_envelope(&list).unwrap();
        assert_eq!(&message[..2], [0x0a, 2 + 3 + 4 + 2]);
        assert_eq!(message.len(), 2 + 11 + 2 * (1 + 2 + 200));
        assert!(protobuf(&head(), [Bytes::from_static(b"{}")].into_iter()).is_none());
    }
}
