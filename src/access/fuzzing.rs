//! What the fuzz targets call.

use super::token::Presented;

/// Reads bytes as the value of the `authorization` header.
pub fn authorization(data: &[u8]) {
    for may_be_jwt in [false, true] {
        let _ = Presented::find(std::iter::once(data), may_be_jwt);
    }
}
