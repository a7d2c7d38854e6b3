//! `$(NAME)` references in commands, arguments and values.
//!
//! `$$` stands for one dollar; a reference to a name that is not defined stays as it is written, as does anything that is not
//! quite a reference.

/// Replaces the references in `text` by what `lookup` answers.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(next) = after.strip_prefix('$') {
            out.push('$');
            rest = next;
        } else if let Some((name, next)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = next;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// As [`expand`], with an undefined name as an error; `subPathExpr` is that strict.
pub fn expand_strictly(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let missing = std::cell::Cell::new(false);
    let expanded = expand(text, |name| {
        let found = lookup(name);
        missing.set(missing.get() || found.is_none());
        found
    });
    if missing.get() { Err("missing value for one or more variables".to_string()) } else { Ok(expanded) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_escapes_and_near_misses() {
        let lookup = |name: &str| match name {
            "A" => Some("1".to_string()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(B)", "$(B)"),
            ("$(EMPTY)", ""),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("$", "$"),
            ("a$$b", "a$b"),
            ("$(A)$(B)$$", "1$(B)$"),
        ] {
            assert_eq!(expand(text, lookup), expected, "{text}");
        }
        assert!(expand_strictly("$(B)", lookup).is_err());
        assert_eq!(expand_strictly("$(A)/x", lookup).unwrap(), "1/x");
    }
}
