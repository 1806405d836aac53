//! What the fuzz targets call.

use super::context::Contexts;

/// Reads the text of a configuration file, and finds its contexts.
pub fn configuration(text: &str) {
    if let Ok(contexts) = toml::from_str::<Contexts>(text) {
        let _ = contexts.chosen(None);
        let _ = contexts.chosen(Some(text));
    }
}
