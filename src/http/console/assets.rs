//! Files that pages load. They are part of the binary: nothing comes from elsewhere.

use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};

/// The files by their names, with their types.
const ASSETS: [(&str, &str, &[u8]); 4] = [
    ("style.css", "text/css; charset=utf-8", include_bytes!("assets/style.css")),
    ("console.js", "text/javascript; charset=utf-8", include_bytes!("assets/console.js")),
    ("htmx.min.js", "text/javascript; charset=utf-8", include_bytes!("assets/htmx.min.js")),
    ("favicon.svg", "image/svg+xml", include_bytes!("assets/favicon.svg")),
];

/// Answers a request for a file. Pages name the version of the broker behind each name, so that a browser
/// keeps a file for as long as it may.
pub(super) async fn serve(Path(name): Path<String>) -> Response {
    match ASSETS.into_iter().find(|(known, ..)| *known == name) {
        Some((_, kind, content)) => {
            let cache = "public, max-age=31536000, immutable";
            ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, cache)], content)
                .into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The address of a file, as pages name it.
pub(super) fn url(name: &str) -> String {
    format!("/assets/{name}?{}", fingerprint(name))
}

/// Changes with the file, also between two builds of one version.
fn fingerprint(name: &str) -> String {
    let content = ASSETS.iter().find(|(known, ..)| *known == name).map_or(&[][..], |it| it.2);
    // FNV-1a. Nothing depends on its being hard to guess.
    let hash = content.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    #[test]
    fn files_of_others_are_those_that_are_listed() {
        let listed = include_str!("assets/VENDORED.md");
        let htmx = ASSETS.into_iter().find(|(name, ..)| *name == "htmx.min.js").unwrap().2;
        let hash: String = Sha256::digest(htmx).iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(listed.contains(&hash), "{hash}");
    }

    #[test]
    fn the_address_of_a_file_changes_with_it() {
        assert!(url("style.css").starts_with("/assets/style.css?"));
        assert_ne!(fingerprint("style.css"), fingerprint("console.js"));
    }
}
