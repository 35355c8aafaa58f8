//! Commands that need no running Ravelin: the same code as the data plane, on files.

pub(crate) mod audit;
pub(crate) mod check;
pub(crate) mod explain;
pub(crate) mod forget;
pub(crate) mod node;
pub(crate) mod parse;
