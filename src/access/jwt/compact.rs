//! The compact form of a signed token: `header.claims.signature`, each in base64url (RFC 7515).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::refusal::Refusal;

/// The longest token that is read, in bytes. Tokens of common providers have 1 to 3 KiB.
const MAX_BYTES: usize = 8 * 1024;

/// A token whose signature has not been checked.
pub(super) struct Compact<'t> {
    pub(super) header: Header,
    /// What is signed.
    pub(super) signed: &'t [u8],
    pub(super) signature: Vec<u8>,
    claims: &'t str,
}

/// The fields of a header that matter. Others, such as keys that come with the token, are ignored.
#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) kid: Option<String>,
    /// Extensions that must be understood (RFC 7515, section 4.1.11). None is.
    crit: Option<serde::de::IgnoredAny>,
}

impl<'t> Compact<'t> {
    pub(super) fn parse(token: &'t str) -> Result<Self, Refusal> {
        if token.len() > MAX_BYTES {
            return Err(Refusal::Malformed("it is longer than 8192 bytes"));
        }
        let parts = token.rsplit_once('.').and_then(|(signed, signature)| {
            let (header, claims) = signed.split_once('.')?;
            (!claims.contains('.')).then_some((header, claims, signed, signature))
        });
        let Some((header, claims, signed, signature)) = parts else {
            return Err(Refusal::Malformed("it does not have three parts"));
        };
        let header: Header = serde_json::from_slice(&decode(header)?)
            .map_err(|_| Refusal::Malformed("its header is not the JSON of a header"))?;
        if header.crit.is_some() {
            return Err(Refusal::Malformed("it requires extensions (`crit`)"));
        }
        Ok(Self { header, signed: signed.as_bytes(), signature: decode(signature)?, claims })
    }

    /// The claims, as JSON. Call it only once the signature is checked.
    pub(super) fn claims(&self) -> Result<Vec<u8>, Refusal> {
        decode(self.claims)
    }
}

fn decode(part: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed("a part is not base64url"))
}
