//! What is special about each built-in kind: the register of strategies and printer columns.
//!
//! A kind that is not named here gets the default strategy and the columns `Name` and `Age`.

use std::sync::Arc;

use crate::columns::{Column, default_columns};
use crate::strategy::{DefaultStrategy, Strategy};

/// The strategy of a built-in kind.
pub fn strategy(_group: &str, _kind: &str) -> Arc<dyn Strategy> {
    Arc::new(DefaultStrategy)
}

/// The printer columns of a built-in kind.
pub fn columns(_group: &str, _kind: &str) -> Vec<Column> {
    default_columns()
}
