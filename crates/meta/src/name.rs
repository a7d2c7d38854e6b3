//! The rules for names, labels and the like, with upstream's messages. Each check answers what is wrong, in order.

const LABEL_MESSAGE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const SUBDOMAIN_UNDERSCORE_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')";
const SYSCTL_MESSAGE: &str = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const LABEL_1035_MESSAGE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_MESSAGE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE_MESSAGE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY_MESSAGE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const ENV_NAME_MESSAGE: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// Rules about names that upstream has not moved to its newer package say characters, and count bytes too.
fn too_long_name(max: usize) -> String {
    format!("must be no more than {max} characters")
}

fn is_lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Letters allowed inside, letters allowed at both ends, at least one.
fn framed(text: &str, edge: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => edge(first) && edge(last) && bytes.iter().all(|&byte| edge(byte) || inner(byte)),
        _ => false,
    }
}

fn is_label(text: &str) -> bool {
    framed(text, is_lower, |byte| byte == b'-')
}

/// RFC 1123 label, at most 63 bytes: namespaces, container names, ports.
pub fn dns1123_label(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > 63 {
        errors.push(too_long_name(63));
    }
    if !is_label(name) {
        let only_length = framed(name, is_lower, |byte| byte == b'-' || byte == b'.') && name.split('.').all(is_label);
        errors.push(if only_length { "must not contain dots".to_string() } else { LABEL_MESSAGE.to_string() });
    }
    errors
}

/// RFC 1123 subdomain, at most 253 bytes: most object names.
pub fn dns1123_subdomain(name: &str) -> Vec<String> {
    subdomain(name, too_long_name(253))
}

fn subdomain(name: &str, too_long: String) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > 253 {
        errors.push(too_long);
    }
    if name.is_empty() || !name.split('.').all(is_label) {
        errors.push(SUBDOMAIN_MESSAGE.to_string());
    }
    errors
}

/// A subdomain whose labels may hold underscores: search paths of DNS.
pub fn dns1123_subdomain_with_underscore(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > 253 {
        errors.push(too_long_name(253));
    }
    let is_part = |part: &str| {
        let part = part.strip_prefix('_').unwrap_or(part);
        framed(part, is_lower, |byte| matches!(byte, b'-' | b'_'))
    };
    if !name.split('.').all(is_part) {
        errors.push(SUBDOMAIN_UNDERSCORE_MESSAGE.to_string());
    }
    errors
}

/// The name of a sysctl, its parts separated by dots or slashes.
pub fn sysctl(name: &str) -> Vec<String> {
    let is_part = |part: &str| framed(part, is_lower, |byte| matches!(byte, b'-' | b'_'));
    let fits = name.len() <= 253 && name.split(['.', '/']).all(is_part);
    if fits { Vec::new() } else { vec![SYSCTL_MESSAGE.to_string()] }
}

/// RFC 1035 label, at most 63 bytes: service names of old.
pub fn dns1035_label(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > 63 {
        errors.push(too_long_name(63));
    }
    if !is_label(name) || !name.as_bytes().first().is_some_and(u8::is_ascii_lowercase) {
        errors.push(LABEL_1035_MESSAGE.to_string());
    }
    errors
}

/// A name that is a path segment: RBAC roles and bindings, which may hold colons and capitals.
pub fn path_segment(name: &str) -> Vec<String> {
    if name == "." || name == ".." {
        return vec![format!("may not be '{name}'")];
    }
    ['/', '%'].iter().filter(|bad| name.contains(**bad)).map(|bad| format!("may not contain '{bad}'")).collect()
}

/// `[prefix/]name`, as label keys, annotation keys, finalizers and resource names are.
pub fn qualified_name(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let parts: Vec<&str> = name.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_string());
            } else {
                errors.extend(subdomain(prefix, too_long(253)).into_iter().map(|error| format!("prefix part {error}")));
            }
            name
        }
        _ => {
            let example = QUALIFIED_MESSAGE.strip_prefix("name part must").unwrap_or_default();
            return vec![format!(
                "a qualified name must{example} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_string());
    } else if name.len() > 63 {
        errors.push(format!("name part {}", too_long(63)));
    }
    if !is_qualified_part(name) {
        errors.push(QUALIFIED_MESSAGE.to_string());
    }
    errors
}

fn is_qualified_part(text: &str) -> bool {
    framed(text, |byte| byte.is_ascii_alphanumeric(), |byte| matches!(byte, b'-' | b'_' | b'.'))
}

/// The value of a label, at most 63 bytes, may be empty.
pub fn label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push(too_long(63));
    }
    if !value.is_empty() && !is_qualified_part(value) {
        errors.push(LABEL_VALUE_MESSAGE.to_string());
    }
    errors
}

/// A key of a ConfigMap or Secret.
pub fn config_key(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if key.len() > 253 {
        errors.push(too_long_name(253));
    }
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        errors.push(CONFIG_KEY_MESSAGE.to_string());
    }
    if key == "." {
        errors.push("must not be '.'".to_string());
    } else if key == ".." {
        errors.push("must not be '..'".to_string());
    } else if key.starts_with("..") {
        errors.push("must not start with '..'".to_string());
    }
    errors
}

/// The name of an environment variable (relaxed rules, on by default upstream).
pub fn environment_variable(name: &str) -> Vec<String> {
    let fits = !name.is_empty() && name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=');
    if fits { Vec::new() } else { vec![ENV_NAME_MESSAGE.to_string()] }
}

/// The name of a container port: an IANA service name.
pub fn port_name(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > 15 {
        errors.push("must be no more than 15 characters".to_string());
    }
    if !name.bytes().all(|byte| is_lower(byte) || byte == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_string());
    }
    if !name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_string());
    }
    if name.contains("--") {
        errors.push("must not contain consecutive hyphens".to_string());
    }
    if name.starts_with('-') || name.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_string());
    }
    errors
}

/// A port number, 1 to 65535.
pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65_535).contains(&port) { Vec::new() } else { vec!["must be between 1 and 65535, inclusive".to_string()] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_refuses_as_upstream_does() {
        type Check = fn(&str) -> Vec<String>;
        let long = "a".repeat(64);
        let cases: &[(Check, &str, bool)] = &[
            (dns1123_label, "a-1", true),
            (dns1123_label, "1a", true),
            (dns1123_label, "-a", false),
            (dns1123_label, "", false),
            (dns1123_label, &long, false),
            (dns1123_subdomain, "a.b-c.d", true),
            (dns1123_subdomain, "a..b", false),
            (dns1123_subdomain, "A", false),
            (dns1035_label, "1a", false),
            (dns1123_subdomain_with_underscore, "_a.b_c", true),
            (dns1123_subdomain_with_underscore, "a_", false),
            (sysctl, "net.ipv4.conf/eth0.arp_filter", true),
            (sysctl, "A B", false),
            (path_segment, "system:node", true),
            (path_segment, "a/b", false),
            (path_segment, "..", false),
            (qualified_name, "example.com/My_name", true),
            (qualified_name, "a/b/c", false),
            (qualified_name, "/b", false),
            (label_value, "", true),
            (label_value, "a b", false),
            (config_key, "..data", false),
            (config_key, ".bashrc", true),
            (environment_variable, "a.b-c", true),
            (environment_variable, "a=b", false),
            (port_name, "http", true),
            (port_name, "123", false),
            (port_name, "a--b", false),
        ];
        for (check, input, fits) in cases {
            assert_eq!(check(input).is_empty(), *fits, "{input:?}: {:?}", check(input));
        }
    }
}
