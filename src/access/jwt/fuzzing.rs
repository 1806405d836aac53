//! What the fuzz targets call.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use super::{
    algorithm::Algorithm,
    claims::Claims,
    keys::Keys,
    verifier::{Expectations, Verifier},
};

/// Reads bytes as a token, as claims whose signature was checked, and as a key set.
pub fn token(data: &[u8]) {
    static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
        Verifier::new(Expectations {
            issuer: "i".to_owned(),
            audience: "a".to_owned(),
            principal_claim: "sub".to_owned(),
            algorithms: vec![Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa],
            leeway: Duration::from_secs(30),
        })
    });
    // The public key of RFC 8037, appendix A.2.
    static KEYS: LazyLock<Keys> = LazyLock::new(|| {
        let set = br#"{"keys":[{"kty":"OKP","crv":"Ed25519",
            "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        Keys::parse(set).unwrap_or_default()
    });
    if let Ok(text) = std::str::from_utf8(data) {
        let verified = VERIFIER.verify(text, &KEYS, SystemTime::now());
        assert!(verified.is_err(), "nobody has the key");
    }
    if let Ok(claims) = Claims::parse(data) {
        let _ = VERIFIER.check(&claims, SystemTime::now());
    }
    let _ = Keys::parse(data);
}
