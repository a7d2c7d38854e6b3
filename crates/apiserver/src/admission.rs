//! Admission: what is filled in and what is refused beyond the rules of a kind, in upstream's order.
//!
//! Plugins run inside every write, with the object in its storage version. `admit` may change the object and runs before
//! validation; `validate` sees it as it would be stored. Webhooks and policies have their place at the end of the list.
//!
//! | plugin | does |
//! |---|---|
//! | [`namespace_lifecycle`] | nothing is made in a namespace that is missing or going |
//! | [`service_account`] | gives pods their account, its token and its pull secrets |
//! | [`node_restriction`] | a node agent touches only what is its own |
//! | [`taint_nodes`] | a new node takes no pods before it is ready |
//! | [`priority`] | resolves priority classes |
//! | [`runtime_class`] | adds a runtime's overhead and its nodes |
//! | [`tolerations`] | pods stay five minutes on a node that is lost |
//! | [`certificates`] | who may approve and sign certificate requests |
//! | [`rbac_escalation`] | nobody grants what they do not have |

pub mod certificates;
pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod priority;
pub mod rbac_escalation;
pub mod runtime_class;
pub mod service_account;
pub mod taint_nodes;
pub mod tolerations;

use std::sync::Arc;

use api::Kind;
use async_trait::async_trait;
use meta::{Object, Status};

use crate::context::Context;
use crate::registry::{Registry, Target};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// What is being done, for plugins to decide whether it concerns them.
pub struct Review<'a> {
    pub cx: &'a Context,
    pub target: &'a Target,
    /// The row in the storage version.
    pub row: &'a Arc<Kind>,
    pub operation: Operation,
    /// None on create.
    pub old: Option<&'a Object>,
}

impl<'a> Review<'a> {
    pub fn new(
        cx: &'a Context,
        target: &'a Target,
        row: &'a Arc<Kind>,
        operation: Operation,
        old: Option<&'a Object>,
    ) -> Self {
        Review { cx, target, row, operation, old }
    }

    /// Whether it is about this resource, and this subresource (empty for the object itself).
    pub fn is(&self, group: &str, resource: &str, subresource: &str) -> bool {
        *self.row.group == *group && *self.row.plural == *resource && self.target.subresource == subresource
    }

    pub fn creates(&self, group: &str, resource: &str) -> bool {
        self.operation == Operation::Create && self.is(group, resource, "")
    }

    pub fn updates(&self, group: &str, resource: &str) -> bool {
        self.operation == Operation::Update && self.is(group, resource, "")
    }

    /// A refusal that names the object.
    pub fn forbidden(&self, object: Option<&Object>, why: impl std::fmt::Display) -> Status {
        let name = match object.or(self.old) {
            Some(object) if !object.name().is_empty() => object.name(),
            Some(object) if !object.generate_name().is_empty() => object.generate_name(),
            _ => &self.target.name,
        };
        Status::forbidden(&self.target.group_resource(), name, why)
    }
}

/// One plugin.
#[async_trait]
pub trait Plugin: Send + Sync + 'static {
    /// Creates and updates, before validation.
    async fn admit(&self, _registry: &Registry, _review: &Review<'_>, _object: &mut Object) -> Result<(), Status> {
        Ok(())
    }

    /// Creates, updates and (without an object) deletes, after validation.
    async fn validate(
        &self,
        _registry: &Registry,
        _review: &Review<'_>,
        _object: Option<&Object>,
    ) -> Result<(), Status> {
        Ok(())
    }
}

/// The plugins in the order they run.
pub struct Admission(Vec<Box<dyn Plugin>>);

impl Default for Admission {
    fn default() -> Self {
        Admission(vec![
            Box::new(namespace_lifecycle::NamespaceLifecycle),
            Box::new(service_account::ServiceAccount),
            Box::new(node_restriction::NodeRestriction),
            Box::new(taint_nodes::TaintNodes),
            Box::new(priority::Priority),
            Box::new(runtime_class::RuntimeClass),
            Box::new(tolerations::DefaultTolerations),
            Box::new(certificates::Certificates),
            Box::new(rbac_escalation::RbacEscalation),
        ])
    }
}

impl Admission {
    pub async fn admit(&self, registry: &Registry, review: &Review<'_>, object: &mut Object) -> Result<(), Status> {
        for plugin in &self.0 {
            plugin.admit(registry, review, object).await?;
        }
        Ok(())
    }

    pub async fn validate(
        &self,
        registry: &Registry,
        review: &Review<'_>,
        object: Option<&Object>,
    ) -> Result<(), Status> {
        for plugin in &self.0 {
            plugin.validate(registry, review, object).await?;
        }
        Ok(())
    }
}
