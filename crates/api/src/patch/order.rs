//! The order of a merged list: the patch's items keep the patch's order, the others keep the server's, and the two are
//! interleaved by where they stood on the server.

use serde_json::Value;

/// What makes two items of a list the same one.
pub type SameItem<'a> = &'a dyn Fn(&Value, &Value) -> bool;

/// Orders `merged`. `wanted` lists items (or stand-ins with their keys) in the order the patch wants, `server` as it was.
pub fn arrange(merged: Vec<Value>, wanted: &[Value], server: &[Value], same: SameItem<'_>) -> Vec<Value> {
    let place = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item));
    let (mut ours, mut theirs): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
    for item in merged {
        match place(wanted, &item) {
            Some(at) => ours.push((at, place(server, &item), item)),
            None => theirs.push((place(server, &item).unwrap_or(usize::MAX), item)),
        }
    }
    ours.sort_by_key(|(at, _, _)| *at);
    theirs.sort_by_key(|(at, _)| *at);
    let mut ordered = Vec::with_capacity(ours.len() + theirs.len());
    let mut theirs = theirs.into_iter().peekable();
    for (_, server_at, item) in ours {
        while let Some((_, other)) = theirs.next_if(|(at, _)| server_at.is_some_and(|ours| *at < ours)) {
            ordered.push(other);
        }
        ordered.push(item);
    }
    ordered.extend(theirs.map(|(_, item)| item));
    ordered
}
