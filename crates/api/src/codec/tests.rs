//! Both directions of both encodings against what upstream's own serializers wrote, for every kind.

use serde_json::json;

use super::*;

struct Fixture {
    gvk: GroupVersionKind,
    json: &'static str,
    proto: Vec<u8>,
}

fn fixtures() -> Vec<Fixture> {
    use base64::Engine as _;
    let text = include_str!("../../testdata/fixtures.txt");
    let read = |line: &'static str| {
        let [name, json, proto] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let (gv, kind): (&str, &str) = name.rsplit_once('/').unwrap();
        let gvk = GroupVersion::parse(gv).unwrap().with_kind(kind);
        Fixture { gvk, json, proto: base64::engine::general_purpose::STANDARD.decode(proto).unwrap() }
    };
    text.lines().map(read).collect()
}

fn check(name: &str, case: impl Fn(&Fixture, &SchemaRef) -> Result<(), String>) {
    let mut failures = Vec::new();
    let all = fixtures();
    assert!(all.len() > 150, "{} fixtures", all.len());
    for fixture in &all {
        let outcome = match schema_for(&fixture.gvk) {
            Some(schema) => case(fixture, &schema),
            None => Err("no schema".into()),
        };
        if let Err(why) = outcome {
            failures.push(format!(
                "{} ({}): {why}",
                fixture.gvk,
                if fixture.json.len() > 500 { "full" } else { "empty" }
            ));
        }
    }
    assert!(
        failures.is_empty(),
        "{name}: {} of {}\n{}",
        failures.len(),
        all.len(),
        failures[..failures.len().min(12)].join("\n")
    );
}

fn same(got: &[u8], wanted: &[u8]) -> Result<(), String> {
    if got == wanted {
        return Ok(());
    }
    let at = got.iter().zip(wanted).position(|(a, b)| a != b).unwrap_or(got.len().min(wanted.len()));
    let near = |bytes: &[u8]| {
        let part = &bytes[at.saturating_sub(60).min(bytes.len())..(at + 40).min(bytes.len())];
        part.escape_ascii().to_string()
    };
    Err(format!("differs at {at}\n   got    {}\n   wanted {}", near(got), near(wanted)))
}

#[test]
fn strings_are_escaped_as_go_does() {
    for (text, written) in [
        ("plain, /path and ünïcode \u{2027}\u{202a}â", "plain, /path and ünïcode \u{2027}\u{202a}â"),
        ("<a href=\"x\">&</a>", r#"\u003ca href=\"x\"\u003e\u0026\u003c/a\u003e"#),
        ("\\ \n\r\t\u{8}\u{c}\u{1f}\u{0}", r"\\ \n\r\t\b\f\u001f\u0000"),
        ("a\u{2028}\u{2029}b", r"a\u2028\u2029b"),
        ("", ""),
    ] {
        let mut out = Vec::new();
        super::sink::write_string(&mut out, text);
        assert_eq!(String::from_utf8(out).unwrap(), format!("\"{written}\""));
    }
    for length in 0..70 {
        for at in 0..=length {
            let (before, after) = ("a".repeat(at), "é".repeat((length - at) / 2));
            let mut out = Vec::new();
            super::sink::write_string(&mut out, &format!("{before}<{after}"));
            assert_eq!(String::from_utf8(out).unwrap(), format!("\"{before}\\u003c{after}\""));
        }
    }
}

#[test]
fn protobuf_becomes_upstreams_json_for_every_kind() {
    check("transcode", |fixture, schema| {
        let text = serve_json(schema, &fixture.proto, "").map_err(|error| error.to_string())?;
        same(&text, fixture.json.as_bytes())
    });
}

#[test]
fn json_becomes_upstreams_protobuf_for_every_kind() {
    check("json to proto", |fixture, schema| {
        let read = read_json(schema, fixture.json.as_bytes())?;
        if !read.problems.is_empty() {
            return Err(read.problems.join(", "));
        }
        let wire = proto(schema, &Object(read.map)).map_err(|error| error.to_string())?;
        same(&wire, &fixture.proto)
    });
}

#[test]
fn json_round_trips_for_every_kind() {
    check("json to json", |fixture, schema| {
        let read = read_json(schema, fixture.json.as_bytes())?;
        same(&json(schema, &Object(read.map)), fixture.json.as_bytes())
    });
}

#[test]
fn a_tree_from_protobuf_is_the_tree_from_json() {
    check("trees", |fixture, schema| {
        let from_proto = read_proto(&fixture.proto).map_err(|error| error.to_string())?;
        let from_proto = conform(schema, from_proto)?.map;
        let from_json = read_json(schema, fixture.json.as_bytes())?.map;
        if from_proto == from_json { Ok(()) } else { Err("trees differ".into()) }
    });
}

/// What a view takes for the absence of a field.
fn without_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(without_nulls);
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

#[test]
fn a_view_of_protobuf_is_the_view_of_json_for_every_kind() {
    check("views", |fixture, _| {
        let read = |media, bytes: &[u8]| {
            let mut value: serde_json::Value = view(media, bytes).map_err(|status| status.message)?;
            without_nulls(&mut value);
            Ok::<_, String>(value.to_string())
        };
        let from_proto = read(Media::Protobuf, &fixture.proto)?;
        same(from_proto.as_bytes(), read(Media::Json, fixture.json.as_bytes())?.as_bytes())
    });
}

#[test]
fn a_typed_view_of_protobuf_is_that_of_json() {
    use crate::typed::Typed;
    use k8s_openapi::api::{apps::v1 as apps, certificates::v1 as certificates, core::v1 as core};
    use k8s_openapi::api::{discovery::v1 as discovery, rbac::v1 as rbac};
    fn compare<K: Typed + PartialEq>(kind: &str) {
        let all = fixtures();
        let of_kind = all.iter().filter(|fixture| fixture.gvk.to_string() == kind);
        let compared = of_kind.map(|fixture| {
            let from_json = K::decode(Media::Json, fixture.json.as_bytes()).unwrap();
            assert!(K::decode(Media::Protobuf, &fixture.proto).unwrap() == from_json, "{kind}");
        });
        assert_ne!(compared.count(), 0, "{kind}");
    }
    let named = |gv: &str, kind: &str| GroupVersion::parse(gv).unwrap().with_kind(kind).to_string();
    compare::<core::Pod>(&named("v1", "Pod"));
    compare::<core::Service>(&named("v1", "Service"));
    compare::<core::Node>(&named("v1", "Node"));
    compare::<core::Secret>(&named("v1", "Secret"));
    compare::<core::PersistentVolume>(&named("v1", "PersistentVolume"));
    compare::<apps::Deployment>(&named("apps/v1", "Deployment"));
    compare::<discovery::EndpointSlice>(&named("discovery.k8s.io/v1", "EndpointSlice"));
    compare::<certificates::CertificateSigningRequest>(&named("certificates.k8s.io/v1", "CertificateSigningRequest"));
    compare::<rbac::ClusterRole>(&named("rbac.authorization.k8s.io/v1", "ClusterRole"));
}

#[test]
fn a_view_of_a_message_with_scattered_fields_is_what_the_tree_is() {
    use crate::typed::Typed;
    use k8s_openapi::api::core::v1::Service;
    let service = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "a", "labels": {"x": "1"}},
        "spec": {"clusterIP": "10.43.0.7", "type": "ClusterIP", "ports": [{"port": 80}]}});
    let service = Object::from_value(service).unwrap();
    let schema = schema_for(&service.gvk().unwrap()).unwrap();
    let raw = proto_message(&schema, &service).unwrap();
    // Messages put one after the other are one message: what stands twice is a longer list, or counts where it stands last.
    let twice = envelope::write("v1", "Service", &[&raw[..], &raw[..]].concat());
    let spec = wire::find(&raw, 2).unwrap().unwrap().bytes();
    let mut longer = Vec::new();
    wire::put_bytes(&mut longer, 2, &[spec, spec].concat());
    let scattered = envelope::write("v1", "Service", &longer);
    for (bytes, ports) in [(&twice, 1), (&scattered, 2)] {
        let view = Service::decode(Media::Protobuf, bytes).unwrap();
        assert_eq!(view, Service::from_object(read_proto(bytes).unwrap()).unwrap());
        assert_eq!(view.spec.unwrap().ports.unwrap().len(), ports);
    }
}

#[test]
fn json_has_gos_order_wherever_the_fields_of_a_message_stand() {
    let service = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "a", "labels": {"x": "1"}},
        "spec": {"clusterIP": "10.43.0.7", "type": "ClusterIP", "ports": [{"port": 80}]}});
    let service = Object::from_value(service).unwrap();
    let schema = schema_for(&service.gvk().unwrap()).unwrap();
    let raw = proto_message(&schema, &service).unwrap();
    let mut fields = Vec::new();
    let mut reader = wire::Reader::new(&raw, 0);
    while let Some((number, payload)) = reader.field().unwrap() {
        let mut field = Vec::new();
        wire::put_bytes(&mut field, number, payload.bytes());
        fields.push(field);
    }
    assert!(fields.len() > 1);
    let text = |raw: &[u8]| {
        let stored = envelope::write("v1", "Service", raw);
        String::from_utf8(serve_json(&schema, &stored, "7").unwrap().to_vec()).unwrap()
    };
    let backwards: Vec<u8> = fields.iter().rev().flatten().copied().collect();
    assert_eq!(text(&backwards), text(&raw));
    // Of what stands twice the last counts, also after others.
    let mut other = Vec::new();
    wire::put_bytes(&mut other, 1, &[]);
    assert_eq!(text(&[&other[..], &backwards].concat()), text(&raw));
}

#[test]
fn a_view_takes_what_it_names_and_skips_the_rest() {
    #[derive(Debug, PartialEq, serde::Deserialize)]
    enum Policy {
        Always,
        Never,
    }
    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Spec {
        restart_policy: Option<Policy>,
        node_name: String,
        security_context: Option<Security>,
    }
    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Security {
        supplemental_groups: Vec<u32>,
    }
    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default)]
    struct Few {
        kind: String,
        spec: Spec,
    }
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}, "spec": {"restartPolicy": "Never",
        "containers": [{"name": "c"}], "securityContext": {"supplementalGroups": [1, 300]}}});
    let pod = Object::from_value(pod).unwrap();
    let security_context = Some(Security { supplemental_groups: vec![1, 300] });
    let expected = Few {
        kind: "Pod".into(),
        spec: Spec { restart_policy: Some(Policy::Never), node_name: String::new(), security_context },
    };
    let bytes = proto(&pod_schema(), &pod).unwrap();
    assert_eq!(view::<Few>(Media::Protobuf, &bytes).unwrap(), expected);
    assert_eq!(view::<Few>(Media::Json, &json(&pod_schema(), &pod)).unwrap(), expected);
    for cut in 0..bytes.len() {
        // Whatever comes of it, it is no panic.
        drop(view::<Few>(Media::Protobuf, &bytes[..cut]));
    }
    let wrong =
        Object::from_value(json!({"kind": "Pod", "apiVersion": "v1", "spec": {"restartPolicy": "Often"}})).unwrap();
    assert!(view::<Few>(Media::Protobuf, &proto(&pod_schema(), &wrong).unwrap()).is_err());
}

fn pod_schema() -> SchemaRef {
    schema_for(&GroupVersionKind::new("", "v1", "Pod")).unwrap()
}

#[test]
fn reports_unknown_and_duplicate_fields_by_path() {
    let text = br#"{"kind":"Pod","spec":{"foo":1,"containers":[{"name":"a","name":"b","bar":{}}]},"metadata":{"labels":{"a":"1","a":"2"}}}"#;
    let read = read_json(&pod_schema(), text).unwrap();
    assert_eq!(
        read.problems,
        [
            "unknown field \"spec.foo\"",
            "duplicate field \"spec.containers[0].name\"",
            "unknown field \"spec.containers[0].bar\"",
            "duplicate field \"metadata.labels.a\""
        ]
    );
    assert_eq!(json!(read.map)["spec"], json!({"containers": [{"name": "b"}]}));
}

#[test]
fn wrong_types_are_refused_in_upstreams_words() {
    let cases = [
        (
            r#"{"spec":{"priority":"x"}}"#,
            "json: cannot unmarshal string into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            r#"{"spec":{"containers":{}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            r#"{"metadata":{"labels":{"a":1}}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            r#"{"spec":{"priority":3000000000}}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            r#"{"spec":{"restartPolicy":true}}"#,
            "json: cannot unmarshal bool into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(read_json(&pod_schema(), text.as_bytes()).unwrap_err(), message);
    }
    assert!(read_json(&pod_schema(), "[".repeat(5000).as_bytes()).is_err());
    assert!(read_json(&pod_schema(), br#"{"kind":"Pod"} x"#).is_err());
}

#[test]
fn what_go_would_not_write_again_is_dropped() {
    let text = br#"{"spec":{"hostNetwork":false,"nodeName":"","containers":[],"volumes":[],"priority":0,"nodeSelector":{},"securityContext":{},"overhead":{"cpu":"1000m"}},"status":null}"#;
    let read = read_json(&pod_schema(), text).unwrap();
    assert_eq!(
        json!(read.map),
        json!({"spec": {"containers": [], "priority": 0, "securityContext": {}, "overhead": {"cpu": "1"}}})
    );
}

#[test]
fn the_revision_is_filled_in_on_the_way_out() {
    let schema = pod_schema();
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a<b", "uid": "u"}, "spec": {"containers": []}});
    let stored = proto(&schema, &Object::from_value(pod).unwrap()).unwrap();
    let text = serve_json(&schema, &stored, "42").unwrap();
    let text = std::str::from_utf8(&text).unwrap();
    assert!(text.starts_with(r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a\u003cb","uid":"u","resourceVersion":"42"},"spec":{"containers":null}"#), "{text}");
    let served = serve_proto(&stored, "42").unwrap();
    let mut wanted = read_proto(&stored).unwrap();
    wanted.set_meta("resourceVersion", "42");
    assert_eq!(served, proto(&schema, &wanted).unwrap());
}

#[test]
fn hostile_protobuf_is_an_error_and_never_a_panic() {
    let schema = pod_schema();
    for fixture in fixtures().iter().filter(|fixture| fixture.gvk.kind.as_ref() == "Pod") {
        for cut in (0..fixture.proto.len()).step_by(7) {
            let _ = read_proto(&fixture.proto[..cut]);
            let mut bent = fixture.proto.clone();
            bent[cut] = bent[cut].wrapping_add(0x55);
            let _ = read_proto(&bent);
            let _ = serve_json(&schema, &bent, "1");
            let _ = serve_proto(&bent, "1");
        }
    }
}

/// A small generator of its own, so that a failure names its seed and replays.
struct Seeded(u64);

impl Seeded {
    fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Leaves fields and items out here and there.
    fn thin(&mut self, value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(map) => {
                map.retain(|key, _| key == "kind" || key == "apiVersion" || !self.number().is_multiple_of(4));
                map.values_mut().for_each(|value| self.thin(value));
            }
            serde_json::Value::Array(items) => {
                items.iter_mut().for_each(|item| self.thin(item));
                if let Some(first) = items.first().cloned().filter(|_| self.number().is_multiple_of(3)) {
                    items.push(first);
                }
            }
            _ => {}
        }
    }
}

#[test]
fn objects_with_any_fields_missing_survive_protobuf() {
    for seed in 1..=6_u64 {
        check(&format!("seed {seed}"), |fixture, schema| {
            let mut random = Seeded(seed * 0x9e37_79b9 + fixture.json.len() as u64);
            let mut value: serde_json::Value = serde_json::from_str(fixture.json).map_err(|error| error.to_string())?;
            random.thin(&mut value);
            let tree = Object(conform(schema, Object::from_value(value).unwrap())?.map);
            let wire = proto(schema, &tree).map_err(|error| error.to_string())?;
            let back = read_proto(&wire).map_err(|error| error.to_string())?;
            same(&proto(schema, &back).map_err(|error| error.to_string())?, &wire)?;
            let served = serve_json(schema, &wire, "").map_err(|error| error.to_string())?;
            same(&json(schema, &back), &served)?;
            // An empty list that is always written is null after protobuf, as upstream.
            let text = String::from_utf8(json(schema, &tree)).unwrap().replace(":[]", ":null");
            same(&served, text.as_bytes())
        });
    }
}

#[test]
fn fields_absent_from_a_message_read_as_gos_zero_values() {
    check("nothing", |fixture, schema| {
        if fixture.json.len() > 500 && fixture.json.contains("t1") {
            return Ok(());
        }
        let nothing = envelope::write(&fixture.gvk.api_version(), &fixture.gvk.kind, &[]);
        let text = serve_json(schema, &nothing, "").map_err(|error| error.to_string())?;
        same(&text, fixture.json.as_bytes())
    });
}

#[test]
fn deep_nesting_is_refused_before_it_can_exhaust_the_stack() {
    let not =
        crate::schema::builtin("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps").unwrap();
    let number = not.field("not").unwrap().number;
    let mut chain = Vec::new();
    for _ in 0..300 {
        let inner = std::mem::take(&mut chain);
        wire::put_bytes(&mut chain, number, &inner);
    }
    let read = |bytes: &[u8]| read_proto_as(&not, &Envelope { api_version: "v1", kind: "X", raw: bytes });
    assert_eq!(read(&chain).unwrap_err(), WireError::TooDeep(100));
    let revision = schema_for(&GroupVersionKind::new("apps", "v1", "ControllerRevision")).unwrap();
    let text = format!("{{\"data\":{}1{}}}", "{\"a\":".repeat(5_000), "}".repeat(5_000));
    assert!(read_json(&revision, text.as_bytes()).is_err());
}

#[test]
fn kinds_of_unknown_groups_have_no_schema() {
    assert!(schema_for(&GroupVersionKind::new("example.com", "v1", "Status")).is_none());
    assert!(schema_for(&GroupVersionKind::new("apps", "v1", "DeleteOptions")).is_some());
    assert!(schema_for(&GroupVersionKind::new("meta.k8s.io", "v1", "PartialObjectMetadataList")).is_some());
    assert!(schema_for(&GroupVersionKind::new("", "v1", "PodList")).is_some());
}
