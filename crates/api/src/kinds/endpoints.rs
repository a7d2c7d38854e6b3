//! Endpoints and EndpointSlice: the addresses behind a service.

use meta::{FieldError, FieldPath, Object, name};
use serde_json::{Value, json};

use super::pod_columns::or_none;
use super::pod_rules;
use super::rules::{self, Errors};
use super::tree::{Read, Write};
use super::workload_columns::string;
use crate::columns::{Column, age_column, name_column};
use crate::strategy::{Request, Strategy};

pub struct Endpoints;
pub struct EndpointSlice;

const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 100;

impl Strategy for Endpoints {
    fn set_defaults(&self, new: &mut Object) {
        for subset in new.0.get_mut("subsets").and_then(Value::as_array_mut).into_iter().flatten() {
            subset.items_mut("ports").for_each(|port| port.default_plain("protocol", "TCP"));
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, new: &Object) -> Vec<FieldError> {
        let mut errors = Errors::new();
        for (index, subset) in new.list_at(&["subsets"]).iter().enumerate() {
            let path = FieldPath::new("subsets").index(index);
            if subset.items("addresses").is_empty() && subset.items("notReadyAddresses").is_empty() {
                errors.push(FieldError::required(&path, "must specify `addresses` or `notReadyAddresses`"));
            }
            for list in ["addresses", "notReadyAddresses"] {
                for (at, address) in subset.items(list).iter().enumerate() {
                    let (path, text) = (path.child(list).index(at).child("ip"), address.text("ip"));
                    pod_rules::ip(&mut errors, text, &path);
                    rules::each_invalid(&mut errors, &path, text, reserved_address(text));
                }
            }
            for (at, port) in subset.items("ports").iter().enumerate() {
                let path = path.child("ports").index(at);
                if subset.items("ports").len() > 1 && port.text("name").is_empty() {
                    errors.push(FieldError::required(&path.child("name"), ""));
                }
                let number = port.number("port").unwrap_or(0);
                let complaints = name::port_number(number).into_iter();
                errors.extend(complaints.map(|it| FieldError::invalid(&path.child("port"), number, it)));
                rules::one_of(&mut errors, port, &path, "protocol", &["SCTP", "TCP", "UDP"]);
            }
        }
        errors
    }

    fn acted_upon(&self) -> bool {
        true
    }
}

impl Strategy for EndpointSlice {
    fn set_defaults(&self, new: &mut Object) {
        for port in new.0.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            port.default_pointer("name", "");
            port.default_pointer("protocol", "TCP");
        }
    }

    fn validate_create(&self, new: &Object) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let kind = new.str_at(&["addressType"]);
        let root = Value::Object(new.0.clone());
        let (endpoints, ports) = (new.list_at(&["endpoints"]), new.list_at(&["ports"]));
        if endpoints.len() > ENDPOINTS_MAX {
            errors.push(FieldError::too_many(&FieldPath::new("endpoints"), endpoints.len(), ENDPOINTS_MAX));
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            let path = FieldPath::new("endpoints").index(index).child("addresses");
            for (at, address) in endpoint.items("addresses").iter().enumerate() {
                slice_address(&mut errors, kind, address.as_str().unwrap_or_default(), &path.index(at));
            }
        }
        if ports.len() > PORTS_MAX {
            errors.push(FieldError::too_many(&FieldPath::new("ports"), ports.len(), PORTS_MAX));
        }
        let mut names = std::collections::BTreeSet::new();
        for (index, port) in ports.iter().enumerate() {
            let path = FieldPath::new("ports").index(index);
            if !names.insert(port.text("name")) {
                errors.push(FieldError::duplicate(&path.child("name"), port.text("name")));
            }
            let text = port.text("name");
            if !text.is_empty() {
                rules::each_invalid(&mut errors, &path.child("name"), text, name::dns1123_label(text));
            }
            rules::one_of(&mut errors, port, &path, "protocol", &["SCTP", "TCP", "UDP"]);
        }
        // Upstream declares these rules in the type's tags, which are checked last.
        rules::one_of(&mut errors, &root, &FieldPath::root(), "addressType", &["FQDN", "IPv4", "IPv6"]);
        for (index, _) in endpoints.iter().enumerate().filter(|(_, it)| it.items("addresses").is_empty()) {
            errors.push(FieldError::required(&FieldPath::new("endpoints").index(index).child("addresses"), ""));
        }
        errors
    }

    fn validate_update(&self, _: &Request, new: &Object, old: &Object) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        let path = FieldPath::new("addressType");
        rules::immutable(&mut errors, new.get(&["addressType"]), old.get(&["addressType"]), &path);
        errors
    }

    fn acted_upon(&self) -> bool {
        true
    }
}

/// What an endpoint cannot be: an address that means another machine to each, or none.
fn reserved_address(text: &str) -> Vec<String> {
    let Ok(address) = text.parse::<std::net::IpAddr>() else { return vec!["must be a valid IP address".into()] };
    let (link_local, link_multicast) = match address {
        std::net::IpAddr::V4(address) => (address.is_link_local(), address.octets()[..3] == [224, 0, 0]),
        std::net::IpAddr::V6(address) => (address.is_unicast_link_local(), address.segments()[0] & 0xff0f == 0xff02),
    };
    let rules = [
        (address.is_unspecified(), format!("may not be unspecified ({text})")),
        (address.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".into()),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".into()),
        (link_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".into()),
    ];
    rules.into_iter().filter(|(broken, _)| *broken).map(|(_, why)| why).collect()
}

fn slice_address(errors: &mut Errors, kind: &str, text: &str, path: &FieldPath) {
    match kind {
        "IPv4" if text.parse::<std::net::Ipv4Addr>().is_err() => {
            errors.push(FieldError::invalid(path, text, "must be an IPv4 address"));
        }
        "IPv6" if text.parse::<std::net::Ipv6Addr>().is_err() => {
            errors.push(FieldError::invalid(path, text, "must be an IPv6 address"));
        }
        "FQDN" => rules::each_invalid(errors, path, text, name::dns1123_subdomain(text)),
        _ => {}
    }
}

/// The first three of a list, and how many more there are.
fn shortened(words: Vec<String>) -> Value {
    let more = words.len().saturating_sub(3);
    let shown = words.into_iter().take(3).collect::<Vec<_>>().join(",");
    if more > 0 { format!("{shown} + {more} more...").into() } else { shown.into() }
}

pub fn endpoints_columns() -> Vec<Column> {
    vec![name_column(), string("Endpoints", 0, |it, _| endpoint_list(it)), age_column()]
}

fn endpoint_list(endpoints: &Object) -> Value {
    let mut words = Vec::new();
    for subset in endpoints.list_at(&["subsets"]) {
        for address in subset.items("addresses") {
            let ports = subset.items("ports");
            if ports.is_empty() {
                words.push(address.text("ip").to_string());
            }
            words.extend(ports.iter().map(|port| {
                let number = port.number("port").unwrap_or(0).try_into().unwrap_or(0);
                match address.text("ip").parse() {
                    Ok(ip) => std::net::SocketAddr::new(ip, number).to_string(),
                    Err(_) => format!("{}:{number}", address.text("ip")),
                }
            }));
        }
    }
    if words.is_empty() { or_none("") } else { shortened(words) }
}

pub fn slice_columns() -> Vec<Column> {
    vec![
        name_column(),
        string("AddressType", 0, |it, _| it.str_at(&["addressType"]).into()),
        string("Ports", 0, |it, _| {
            let ports = it.list_at(&["ports"]).iter().map(|port| match port.number("port") {
                Some(number) => number.to_string(),
                None => port.text("name").to_string(),
            });
            let ports: Vec<String> = ports.collect();
            if ports.is_empty() { json!("<unset>") } else { shortened(ports) }
        }),
        string("Endpoints", 0, |it, _| {
            let addresses = it.list_at(&["endpoints"]).iter().flat_map(|endpoint| endpoint.items("addresses"));
            let addresses: Vec<String> = addresses.filter_map(Value::as_str).map(String::from).collect();
            if addresses.is_empty() { json!("<unset>") } else { shortened(addresses) }
        }),
        age_column(),
    ]
}
