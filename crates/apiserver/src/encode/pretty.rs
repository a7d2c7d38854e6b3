//! Indented JSON for people, made from compact JSON without reading it into a tree, so that fields keep their order.

use bytes::Bytes;

/// Indents by two spaces, as `kubectl get --raw` and curl users know it.
pub fn indent(slices: &[Bytes]) -> Bytes {
    let length: usize = slices.iter().map(Bytes::len).sum();
    let mut writer =
        Indenter { out: Vec::with_capacity(length * 2), depth: 0, in_text: false, escaped: false, opened: false };
    for slice in slices {
        slice.iter().for_each(|byte| writer.take(*byte));
    }
    if writer.out.last() != Some(&b'\n') {
        writer.out.push(b'\n');
    }
    writer.out.into()
}

struct Indenter {
    out: Vec<u8>,
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// A bracket was opened and nothing stands in it yet.
    opened: bool,
}

impl Indenter {
    fn take(&mut self, byte: u8) {
        if self.in_text {
            self.out.push(byte);
            self.in_text = self.escaped || byte != b'"';
            self.escaped = byte == b'\\' && !self.escaped;
            return;
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'}' | b']' => self.close(byte),
            _ => self.inside(byte),
        }
    }

    fn close(&mut self, byte: u8) {
        self.depth = self.depth.saturating_sub(1);
        if !self.opened {
            self.new_line();
        }
        self.opened = false;
        self.out.push(byte);
    }

    fn inside(&mut self, byte: u8) {
        if self.opened {
            self.new_line();
            self.opened = false;
        }
        self.out.push(byte);
        match byte {
            b'{' | b'[' => {
                self.depth += 1;
                self.opened = true;
            }
            b',' => self.new_line(),
            b':' => self.out.push(b' '),
            b'"' => self.in_text = true,
            _ => {}
        }
    }

    fn new_line(&mut self) {
        self.out.push(b'\n');
        self.out.extend(std::iter::repeat_n(b' ', 2 * self.depth));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_text_and_leaves_empty_brackets_closed() {
        let compact = Bytes::from_static(br#"{"b":{"x":"a,{\"}"},"a":[],"c":[1,{}],"d":{}}"#);
        let expected = "{\n  \"b\": {\n    \"x\": \"a,{\\\"}\"\n  },\n  \"a\": [],\n  \"c\": [\n    1,\n    {}\n  ],\n  \"d\": {}\n}\n";
        assert_eq!(indent(&[compact.slice(..10), compact.slice(10..)]), expected);
    }
}
