//! server
pub mod log_format;
use crate::StartError;
use crate::agent::Agent;
use std::sync::Arc;
pub async fn start(_agent: Arc<Agent>) -> Result<u16, StartError> {
    Ok(0)
}
