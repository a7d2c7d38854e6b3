//! The kinds table: a snapshot of all kinds that is swapped as a whole, so a reader never sees half a change.
//!
//! `data/kinds.txt` gives the built-in rows (names, scope, verbs, subresources, storage); `crate::kinds` gives what is special
//! about each. Custom resource definitions add rows of the same type through [`KindsTable::update`].

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use meta::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};

use crate::kind::{Kind, Scope, Storage, Subresource};
use crate::schema::{self, SchemaRef};

static TEXT: &str = include_str!("../data/kinds.txt");
static BUILTIN: LazyLock<Arc<Kinds>> = LazyLock::new(|| Arc::new(Kinds::new(parse(TEXT))));

/// One snapshot of the table.
#[derive(Default)]
pub struct Kinds {
    rows: Vec<Arc<Kind>>,
    by_gvk: HashMap<GroupVersionKind, usize>,
    by_gvr: HashMap<GroupVersionResource, usize>,
    by_group_resource: HashMap<GroupResource, Vec<usize>>,
}

/// All kinds of the release, served by default or not. The same snapshot on every call.
pub fn builtin() -> Arc<Kinds> {
    BUILTIN.clone()
}

impl Kinds {
    /// A snapshot of these rows; of two rows of one name the later counts.
    pub fn new(rows: Vec<Arc<Kind>>) -> Self {
        let mut kinds = Kinds { rows, ..Kinds::default() };
        for (index, row) in kinds.rows.iter().enumerate() {
            kinds.by_gvk.insert(row.gvk(), index);
            kinds.by_gvr.insert(row.gvr(), index);
            kinds.by_group_resource.entry(row.group_resource()).or_default().push(index);
        }
        kinds
    }

    /// Every row: groups in upstream's discovery order of files, versions as listed.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.rows.iter()
    }

    /// The rows that are served when nothing else is asked for.
    pub fn served_by_default(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.rows.iter().filter(|row| row.served_by_default)
    }

    pub fn by_gvk(&self, gvk: &GroupVersionKind) -> Option<&Arc<Kind>> {
        self.by_gvk.get(gvk).map(|index| &self.rows[*index])
    }

    pub fn by_gvr(&self, gvr: &GroupVersionResource) -> Option<&Arc<Kind>> {
        self.by_gvr.get(gvr).map(|index| &self.rows[*index])
    }

    /// All versions of a resource.
    pub fn by_group_resource(&self, resource: &GroupResource) -> impl Iterator<Item = &Arc<Kind>> {
        self.by_group_resource.get(resource).into_iter().flatten().map(|index| &self.rows[*index])
    }

    /// All versions of a kind.
    pub fn by_group_kind(&self, kind: &GroupKind) -> impl Iterator<Item = &Arc<Kind>> {
        self.rows.iter().filter(move |row| row.group == kind.group && row.kind == kind.kind)
    }

    /// A copy without the rows that `keep` refuses and with `more` added.
    pub fn with(&self, keep: impl Fn(&Kind) -> bool, more: Vec<Arc<Kind>>) -> Self {
        Kinds::new(self.rows.iter().filter(|row| keep(row)).cloned().chain(more).collect())
    }
}

/// The current snapshot, to be shared by all who serve requests.
pub struct KindsTable(ArcSwap<Kinds>);

impl KindsTable {
    /// Starts with what is served by default.
    pub fn served_by_default() -> Self {
        let served = builtin().with(|kind| kind.served_by_default, Vec::new());
        KindsTable(ArcSwap::from_pointee(served))
    }

    /// The snapshot as of now; hold it for one request, not longer.
    pub fn load(&self) -> Arc<Kinds> {
        self.0.load_full()
    }

    /// Replaces the snapshot by one made from it. `change` may run more than once when updates race.
    pub fn update(&self, change: impl Fn(&Kinds) -> Kinds) {
        self.0.rcu(|kinds| Arc::new(change(kinds)));
    }
}

fn parse(text: &str) -> Vec<Arc<Kind>> {
    let mut rows: Vec<Kind> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["K", rest @ ..] => rows.extend(parse_kind(rest)),
            ["S", name, kind, verbs] => {
                if let (Some(row), Some(kind)) = (rows.last_mut(), parse_gvk(kind)) {
                    row.subresources.push(Subresource { name: (*name).into(), kind, verbs: words_of(verbs) });
                }
            }
            _ => {}
        }
    }
    rows.into_iter().map(Arc::new).collect()
}

fn parse_kind(words: &[&str]) -> Option<Kind> {
    let [gv, kind, plural, singular, scope, served, model, short, categories, verbs, storage, segment] = words else {
        return None;
    };
    let gv = GroupVersion::parse(gv)?;
    let gvk = gv.with_kind(kind);
    let stored = parse_gvk(storage).map(|stored| Storage {
        key_segment: (*segment).into(),
        convert: (stored != gvk).then_some(crate::convert::convert as crate::kind::Convert),
        kind: stored,
    });
    Some(Kind {
        strategy: crate::kinds::strategy(&gv.group, kind),
        columns: crate::kinds::columns(&gv.group, kind).into(),
        kind: gvk.kind,
        list_kind: format!("{kind}List").into(),
        group: gv.group,
        version: gv.version,
        plural: (*plural).into(),
        singular: (*singular).into(),
        short_names: words_of(short),
        categories: words_of(categories),
        scope: if *scope == "N" { Scope::Namespaced } else { Scope::Cluster },
        verbs: words_of(verbs),
        stored,
        served_by_default: *served == "1",
        subresources: Vec::new(),
        schema: schema::builtin(model).unwrap_or(SchemaRef::Custom(Arc::default())),
        protobuf: true,
    })
}

fn words_of(text: &str) -> Vec<Arc<str>> {
    if text == "-" { Vec::new() } else { text.split(',').map(Arc::from).collect() }
}

/// Reads `apps/v1/Deployment` or `v1/Pod`; a dash is none.
fn parse_gvk(text: &str) -> Option<GroupVersionKind> {
    let (gv, kind) = text.rsplit_once('/')?;
    Some(GroupVersion::parse(gv)?.with_kind(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_kind_is_a_whole_row() {
        let kinds = builtin();
        assert!(kinds.iter().count() >= 100);
        for kind in kinds.iter() {
            let gvk = kind.gvk();
            assert!(!kind.schema.fields.is_empty(), "{gvk} has no schema");
            assert_eq!(kinds.by_gvk(&gvk).map(|row| row.gvk()), Some(gvk.clone()));
            assert_eq!(kinds.by_gvr(&kind.gvr()).map(|row| row.gvk()), Some(gvk.clone()));
            if let Some(stored) = &kind.stored {
                assert!(!stored.key_segment.is_empty());
                assert!(crate::codec::schema_for(&stored.kind).is_some(), "{gvk} is stored as {}", stored.kind);
                assert_eq!(stored.convert.is_some(), stored.kind != gvk);
            }
            for subresource in &kind.subresources {
                assert!(crate::codec::schema_for(&subresource.kind).is_some(), "{gvk} {}", subresource.name);
            }
        }
    }

    #[test]
    fn betas_are_in_the_table_and_not_served() {
        let table = KindsTable::served_by_default();
        let served = table.load();
        assert!(served.iter().all(|kind| !kind.version.contains("alpha") && !kind.version.contains("beta")));
        let pods = GroupVersionResource::new("", "v1", "pods");
        assert_eq!(served.by_gvr(&pods).unwrap().short_names, [Arc::from("po")]);
        table.update(|kinds| kinds.with(|kind| kind.plural.as_ref() != "pods", Vec::new()));
        assert!(table.load().by_gvr(&pods).is_none() && served.by_gvr(&pods).is_some());
        let claims = GroupResource::new("resource.k8s.io", "resourceclaims");
        assert_eq!(builtin().by_group_resource(&claims).count(), 3);
    }
}
