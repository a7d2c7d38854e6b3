//! JSON text as Go reads it: the grammar is checked first, with Go's words for what is wrong, before any decoder sees it.
//!
//! Upstream's clients see these messages, and a text nested too deep is refused here whatever field it stands in. What Go
//! repairs is repaired: bytes that are no UTF-8 and halves of surrogate pairs become U+FFFD.

use std::borrow::Cow;

use meta::quote::quoted_letter;

/// Lists and maps nest at most this deep.
const DEPTH_MAX: usize = 10_000;

const VALUE: &str = "looking for beginning of value";
const KEY: &str = "looking for beginning of object key string";
const ESCAPE: &str = "in \\u hexadecimal character escape";

/// The text, repaired where Go repairs it. The error is what Go says about the first letter that does not fit.
pub fn check(bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    let mut scanner = Scanner { bytes, at: 0, open: Vec::new(), has_surrogates: false };
    scanner.document()?;
    let mut text = Cow::Borrowed(bytes);
    if std::str::from_utf8(bytes).is_err() {
        text = Cow::Owned(replace_invalid(bytes));
    }
    if scanner.has_surrogates {
        text = Cow::Owned(replace_lone_surrogates(&text));
    }
    Ok(text)
}

/// What may come next.
enum Next {
    Value,
    /// Behind `[`: a value, or the end of the list.
    FirstItem,
    /// Behind `{`: a key, or the end of the map.
    FirstKey,
    Key,
    /// A value is complete.
    After,
}

#[derive(Clone, Copy)]
enum Container {
    Map,
    List,
}

struct Scanner<'a> {
    bytes: &'a [u8],
    /// Behind the letter read last.
    at: usize,
    open: Vec<Container>,
    /// Whether a `\ud800` to `\udfff` was met, which may lack its other half.
    has_surrogates: bool,
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), String> {
        let mut next = Next::Value;
        loop {
            next = match (next, self.open.last()) {
                (Next::After, None) => return self.end(),
                (Next::After, Some(Container::Map)) => match self.token()? {
                    b',' => Next::Key,
                    b'}' => self.close(),
                    _ => return Err(self.wrong("after object key:value pair")),
                },
                (Next::After, Some(Container::List)) => match self.token()? {
                    b',' => Next::Value,
                    b']' => self.close(),
                    _ => return Err(self.wrong("after array element")),
                },
                (Next::FirstItem, _) => match self.token()? {
                    b']' => self.close(),
                    letter => self.value(letter)?,
                },
                (Next::FirstKey, _) => match self.token()? {
                    b'}' => self.close(),
                    letter => self.key(letter)?,
                },
                (Next::Key, _) => {
                    let letter = self.token()?;
                    self.key(letter)?
                }
                (Next::Value, _) => {
                    let letter = self.token()?;
                    self.value(letter)?
                }
            };
        }
    }

    /// Nothing but space may follow.
    fn end(&mut self) -> Result<(), String> {
        match self.token() {
            Ok(_) => Err(self.wrong("after top-level value")),
            Err(_) => Ok(()),
        }
    }

    fn close(&mut self) -> Next {
        self.open.pop();
        Next::After
    }

    fn letter(&mut self) -> Result<u8, String> {
        let letter = self.bytes.get(self.at).copied().ok_or("unexpected end of JSON input")?;
        self.at += 1;
        Ok(letter)
    }

    /// The next letter that is no space.
    fn token(&mut self) -> Result<u8, String> {
        loop {
            match self.letter()? {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                letter => return Ok(letter),
            }
        }
    }

    /// The error about the letter read last.
    fn wrong(&self, context: &str) -> String {
        let letter = self.bytes.get(self.at.wrapping_sub(1)).copied().unwrap_or_default();
        format!("invalid character {} {context}", quoted_letter(letter.into()))
    }

    fn key(&mut self, letter: u8) -> Result<Next, String> {
        if letter != b'"' {
            return Err(self.wrong(KEY));
        }
        self.string()?;
        if self.token()? == b':' { Ok(Next::Value) } else { Err(self.wrong("after object key")) }
    }

    fn value(&mut self, letter: u8) -> Result<Next, String> {
        match letter {
            b'{' => return self.open(Container::Map, Next::FirstKey),
            b'[' => return self.open(Container::List, Next::FirstItem),
            b'"' => self.string()?,
            b'-' | b'0'..=b'9' => self.number(letter)?,
            b't' => self.literal("true")?,
            b'f' => self.literal("false")?,
            b'n' => self.literal("null")?,
            _ => return Err(self.wrong(VALUE)),
        }
        Ok(Next::After)
    }

    fn open(&mut self, container: Container, next: Next) -> Result<Next, String> {
        if self.open.len() == DEPTH_MAX {
            return Err(self.wrong("exceeded max depth"));
        }
        self.open.push(container);
        Ok(next)
    }

    fn literal(&mut self, word: &str) -> Result<(), String> {
        for wanted in word.bytes().skip(1) {
            if self.letter()? != wanted {
                return Err(self.wrong(&format!("in literal {word} (expecting '{}')", char::from(wanted))));
            }
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), String> {
        loop {
            match self.letter()? {
                b'"' => return Ok(()),
                b'\\' => match self.letter()? {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    b'u' => {
                        let from = self.at;
                        for _ in 0..4 {
                            if !self.letter()?.is_ascii_hexdigit() {
                                return Err(self.wrong(ESCAPE));
                            }
                        }
                        self.has_surrogates |= is_surrogate(&self.bytes[from..self.at]);
                    }
                    _ => return Err(self.wrong("in string escape code")),
                },
                0..=0x1f => return Err(self.wrong("in string literal")),
                _ => {}
            }
        }
    }

    fn number(&mut self, mut first: u8) -> Result<(), String> {
        if first == b'-' {
            first = self.letter()?;
            if !first.is_ascii_digit() {
                return Err(self.wrong("in numeric literal"));
            }
        }
        if first != b'0' {
            self.digits();
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digit("after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.digit("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn digit(&mut self, context: &str) -> Result<(), String> {
        if !self.letter()?.is_ascii_digit() {
            return Err(self.wrong(context));
        }
        self.digits();
        Ok(())
    }

    fn digits(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }
}

/// One U+FFFD for each byte that is no text.
fn replace_invalid(bytes: &[u8]) -> Vec<u8> {
    let mut out = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    out.into_bytes()
}

fn is_surrogate(digits: &[u8]) -> bool {
    matches!(digits, [b'd' | b'D', b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F', ..])
}

fn is_high(digits: &[u8]) -> bool {
    matches!(digits, [b'd' | b'D', b'8' | b'9' | b'a' | b'b' | b'A' | b'B', ..])
}

/// Escapes of halves of pairs become `\ufffd`. The text is JSON already: a backslash is followed by what it escapes.
fn replace_lone_surrogates(text: &[u8]) -> Vec<u8> {
    let mut out = text.to_vec();
    let escaped = |out: &[u8], at: usize| match out.get(at..at + 6) {
        Some([b'\\', b'u', digits @ ..]) => Some([digits[0], digits[1], digits[2], digits[3]]),
        _ => None,
    };
    let mut at = 0;
    while at < out.len() {
        if out[at] != b'\\' {
            at += 1;
            continue;
        }
        let Some(digits) = escaped(&out, at) else {
            at += 2;
            continue;
        };
        let low = escaped(&out, at + 6).filter(|low| is_surrogate(low) && !is_high(low));
        if is_high(&digits) && low.is_some() {
            at += 12;
            continue;
        }
        if is_surrogate(&digits) {
            out[at + 2..at + 6].copy_from_slice(b"fffd");
        }
        at += 6;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_go_says() {
        for (text, expected) in [
            ("", "unexpected end of JSON input"),
            ("{\"a\":", "unexpected end of JSON input"),
            ("{\"a\":1} x", "invalid character 'x' after top-level value"),
            ("{'a':1}", r"invalid character '\'' looking for beginning of object key string"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 /", "invalid character '/' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("nul!", "invalid character '!' in literal null (expecting 'l')"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1ex", "invalid character 'x' in exponent of numeric literal"),
            ("01", "invalid character '1' after top-level value"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            ("\"\\u12\"", "invalid character '\"' in \\u hexadecimal character escape"),
            ("\"\n\"", r"invalid character '\n' in string literal"),
        ] {
            assert_eq!(check(text.as_bytes()).unwrap_err(), expected, "{text}");
        }
        for text in ["null", " [ ] ", "{ }", "[{\"a\":[1,-0.5e+3,true,{}]},\"\\u00e4\\n\"]", "0", "1e400"] {
            assert_eq!(&*check(text.as_bytes()).unwrap(), text.as_bytes());
        }
        assert_eq!(check(b"\xff").unwrap_err(), "invalid character 'ÿ' looking for beginning of value");
    }

    #[test]
    fn nesting_ends_somewhere() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(check(nested(10_000).as_bytes()).is_ok());
        assert_eq!(check(nested(10_001).as_bytes()).unwrap_err(), "invalid character '[' exceeded max depth");
    }

    #[test]
    fn repairs_what_is_no_text() {
        assert_eq!(&*check(b"\"a\xff\"").unwrap(), "\"a\u{fffd}\"".as_bytes());
        for (text, expected) in [
            (r#""\ud800""#, r#""\ufffd""#),
            (r#""\ud83d\ude00\ude00""#, r#""\ud83d\ude00\ufffd""#),
            (r#""\\ud800\ud800""#, r#""\\ud800\ufffd""#),
        ] {
            assert_eq!(check(text.as_bytes()).unwrap(), expected.as_bytes());
        }
    }
}
