//! Text in quotes as Go's `%q` writes it, for messages that upstream's clients know.

use std::fmt::Write as _;

/// The text in double quotes, with Go's escapes: `"a\ab"`, `"\x00"`, `"\u0081"`.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        if letter == '"' { out.push_str("\\\"") } else { escape(letter, &mut out) }
    }
    out.push('"');
    out
}

/// One letter in single quotes, as Go names a letter that does not fit.
pub fn quoted_letter(letter: char) -> String {
    let mut out = String::from("'");
    if letter == '\'' {
        out.push_str("\\'")
    } else {
        escape(letter, &mut out)
    }
    out.push('\'');
    out
}

fn escape(letter: char, out: &mut String) {
    let short = match letter {
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\u{c}' => 'f',
        '\n' => 'n',
        '\r' => 'r',
        '\t' => 't',
        '\u{b}' => 'v',
        '\\' => '\\',
        _ if is_printable(letter) => return out.push(letter),
        _ => {
            let code = letter as u32;
            // Writing to a String does not fail.
            let _ = match code {
                0..=0x7f => write!(out, "\\x{code:02x}"),
                0x80..=0xffff => write!(out, "\\u{code:04x}"),
                _ => write!(out, "\\U{code:08x}"),
            };
            return;
        }
    };
    out.extend(['\\', short]);
}

/// Quotes are printable, which Rust's own escapes do not say.
fn is_printable(letter: char) -> bool {
    matches!(letter, '"' | '\'') || letter.escape_debug().len() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_gos() {
        for (text, expected) in [
            ("a", r#""a""#),
            ("a\u{7}b\n\"c'\\", r#""a\ab\n\"c'\\""#),
            ("\0\u{7f}\u{81}ÿ\u{fffd}", "\"\\x00\\x7f\\u0081ÿ\u{fffd}\""),
            ("\u{e0001}", r#""\U000e0001""#),
        ] {
            assert_eq!(quoted(text), expected);
        }
        assert_eq!(quoted_letter('\''), r"'\''");
        assert_eq!(quoted_letter('"'), "'\"'");
    }
}
