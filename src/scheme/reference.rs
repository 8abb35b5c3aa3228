//! The whole answer to one query: stub, being written.
use super::KeyBundle;
use crate::params::Shape;

/// matrix: rows x columns signed bytes; tables: one after the other; query: 3 bytes a column.
/// Returns one packed response a pack.
pub fn answer(
    shape: &Shape,
    matrix: &[u8],
    tables: &[u8],
    query: &[u8],
    bundle: &KeyBundle,
) -> Vec<Vec<u8>> {
    let _ = (shape, matrix, tables, query, bundle);
    todo!()
}
