//! The quality of service class of a pod, which follows from what its containers ask for.

use std::collections::BTreeMap;

use meta::Quantity;
use serde_json::Value;

use super::tree::Read;

/// `Guaranteed` when every container limits CPU and memory and asks for just that, `BestEffort` when none asks for anything,
/// else `Burstable`. Init containers count too.
pub fn class(spec: &Value) -> &'static str {
    let containers = || spec.items("initContainers").iter().chain(spec.items("containers"));
    let (mut any, mut guaranteed) = (false, true);
    for container in containers() {
        let of = |field: &str| -> BTreeMap<&str, Quantity> {
            let list = container.get("resources").unwrap_or(&Value::Null);
            let counted = list.get(field).and_then(Value::as_object).into_iter().flatten();
            counted
                .filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory"))
                .filter_map(|(name, value)| {
                    let text = value.as_str().map_or_else(|| value.to_string(), String::from);
                    Some((name.as_str(), text.parse::<Quantity>().ok().filter(|quantity| !quantity.is_zero())?))
                })
                .collect()
        };
        let (requests, limits) = (of("requests"), of("limits"));
        any |= !requests.is_empty() || !limits.is_empty();
        guaranteed &= limits.len() == 2 && (requests.is_empty() || requests == limits);
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_class_follows_from_requests_and_limits() {
        let spec = |resources: Value| json!({"containers": [{"resources": resources}]});
        for (resources, expected) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}}),
                "Guaranteed",
            ),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}),
                "Burstable",
            ),
            (json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}), "Burstable"),
        ] {
            assert_eq!(class(&spec(resources.clone())), expected, "{resources}");
        }
    }
}
