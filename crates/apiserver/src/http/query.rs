//! Query parameters, decoded once, in the order they were sent.

/// The decoded query of a request. Cheap to look up: requests have a handful of parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads the part after the question mark. Anything can be read; bad escapes stay as they are.
    pub fn parse(text: &str) -> Self {
        let pairs = form_urlencoded::parse(text.as_bytes());
        Query { pairs: pairs.map(|(key, value)| (key.into_owned(), value.into_owned())).collect() }
    }

    /// The first value of a parameter.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A flag as upstream reads it: present counts as set unless it says `false` or `0`.
    pub fn flag(&self, name: &str) -> bool {
        self.first(name).is_some_and(|value| !value.eq_ignore_ascii_case("false") && value != "0")
    }

    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// The query again, encoded, without the parameters that `drop` names.
    pub fn encode_without(&self, drop: &[&str]) -> String {
        let mut out = form_urlencoded::Serializer::new(String::new());
        out.extend_pairs(self.pairs.iter().filter(|(key, _)| !drop.contains(&key.as_str())));
        out.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_repeated_values() {
        let query = Query::parse("watch&command=ls&command=-l&pretty=false&x=%2C");
        assert!(query.flag("watch") && !query.flag("pretty") && !query.flag("absent"));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["ls", "-l"]);
        assert_eq!(query.first("x"), Some(","));
        assert_eq!(query.encode_without(&["watch", "pretty", "x"]), "command=ls&command=-l");
    }
}
