//! Tokens: `tlk_ID_SECRET`, where the id has 12 characters of `a-z0-9`, and the secret is 32 random
//! bytes in base64url without padding.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::access::error::Error;

const PREFIX: &str = "tlk_";
const ID_CHARS: usize = 12;
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const SECRET_BYTES: usize = 32;
/// 32 bytes in base64.
const SECRET_CHARS: usize = 43;
const TOKEN_CHARS: usize = PREFIX.len() + ID_CHARS + 1 + SECRET_CHARS;

/// SHA-256 of a whole token.
pub(crate) type Hash = [u8; 32];

/// A token that has just been made. Its text is shown once, to whoever asked for it.
pub(crate) struct Minted {
    /// The part that may be shown.
    pub id: String,
    /// The whole token.
    pub text: String,
    /// What is stored of it.
    pub hash: Hash,
}

/// What a caller presents.
pub(crate) enum Presented<'a> {
    /// A token of this broker's.
    Own(OwnToken<'a>),
    /// What may be a token of an identity provider.
    Jwt(&'a str),
}

/// A token of this broker's that a caller presents.
pub(crate) struct OwnToken<'a> {
    pub id: &'a str,
    pub hash: Hash,
}

/// The system has no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("get random numbers from the system: {0}")]
pub(crate) struct NoRandom(#[from] pub getrandom::Error);

impl Minted {
    /// Makes a token of random numbers.
    pub(crate) fn new() -> Result<Self, NoRandom> {
        let (id, mut secret) = (random_id()?, [0; SECRET_BYTES]);
        getrandom::fill(&mut secret)?;
        let text = format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(secret));
        let hash = hash(&text);
        Ok(Self { id, text, hash })
    }
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minted").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<'a> Presented<'a> {
    /// The token in a call's `authorization` headers; `None` if there is no such header.
    /// `may_be_jwt` says whether tokens of an identity provider are accepted.
    pub(crate) fn find(
        mut headers: impl Iterator<Item = &'a [u8]>,
        may_be_jwt: bool,
    ) -> Result<Option<Self>, Error> {
        let Some(header) = headers.next() else { return Ok(None) };
        let malformed = |problem| Err(Error::TokenMalformed { problem });
        if headers.next().is_some() {
            return malformed("the call has several authorization headers");
        }
        let Some((scheme, token)) = header.split_at_checked("Bearer ".len()) else {
            return malformed("the authorization header is not of the form `Bearer TOKEN`");
        };
        if !scheme.eq_ignore_ascii_case(b"Bearer ") {
            return malformed("the authorization header is not of the form `Bearer TOKEN`");
        }
        match str::from_utf8(token) {
            Ok(text) if may_be_jwt && !text.starts_with(PREFIX) => Ok(Some(Self::Jwt(text))),
            _ => OwnToken::parse(token).map(|token| Some(Self::Own(token))),
        }
    }
}

impl<'a> OwnToken<'a> {
    fn parse(token: &'a [u8]) -> Result<Self, Error> {
        let malformed = Error::TokenMalformed { problem: "it is not of the form tlk_ID_SECRET" };
        let text = match str::from_utf8(token) {
            Ok(text) if text.len() == TOKEN_CHARS && text.is_ascii() => text,
            _ => return Err(malformed),
        };
        let parts = text.strip_prefix(PREFIX).and_then(|rest| {
            let (id, rest) = rest.split_at(ID_CHARS);
            Some((id, rest.strip_prefix('_')?))
        });
        let Some((id, secret)) = parts else { return Err(malformed) };
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !id.bytes().all(is_of_id) || !secret.bytes().all(is_base64) {
            return Err(malformed);
        }
        Ok(Self { id, hash: hash(text) })
    }
}

/// Whether two hashes are equal, in the same time wherever they differ.
pub(crate) fn are_equal(one: &Hash, other: &Hash) -> bool {
    use subtle::ConstantTimeEq as _;
    one.ct_eq(other).into()
}

/// Whether a text may be a token's id.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == ID_CHARS && text.bytes().all(is_of_id)
}

/// Whether it is one of [`ALPHABET`].
fn is_of_id(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

pub(crate) fn hash(token: &str) -> Hash {
    Sha256::digest(token.as_bytes()).into()
}

fn random_id() -> Result<String, NoRandom> {
    let mut id = String::with_capacity(ID_CHARS);
    while id.len() < ID_CHARS {
        let mut bytes = [0; 2 * ID_CHARS];
        getrandom::fill(&mut bytes)?;
        // Bytes from 252 on would make some characters more frequent.
        let fair = bytes.into_iter().filter(|&byte| byte < 252);
        id.extend(fair.map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])));
        id.truncate(ID_CHARS);
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(headers: &[&str]) -> Result<Option<String>, Error> {
        let found = Presented::find(headers.iter().map(|header| header.as_bytes()), false)?;
        Ok(found.map(|found| match found {
            Presented::Own(token) => token.id.to_owned(),
            Presented::Jwt(_) => unreachable!("no JWT is accepted"),
        }))
    }

    #[test]
    fn a_minted_token_is_found_in_its_header() {
        let minted = Minted::new().unwrap();
        assert!(is_id(&minted.id) && minted.text.len() == TOKEN_CHARS);
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let header = format!("{scheme} {}", minted.text);
            // Whether or not tokens of an identity provider are accepted, too.
            for may_be_jwt in [false, true] {
                let headers = std::iter::once(header.as_bytes());
                let found = Presented::find(headers, may_be_jwt).unwrap().unwrap();
                let Presented::Own(found) = found else { panic!("it is the broker's own") };
                assert_eq!(found.id, minted.id);
                assert!(are_equal(&found.hash, &minted.hash));
            }
        }
        assert_ne!(Minted::new().unwrap().text, minted.text);
        assert_eq!(find(&[]).unwrap(), None);
    }

    #[test]
    fn what_is_no_token_is_malformed_and_not_repeated() {
        let good = Minted::new().unwrap().text;
        let secret = &good[PREFIX.len() + ID_CHARS..];
        for bad in [
            String::new(),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            good.clone(),
            format!("Basic {good}"),
            format!("Bearer  {good}"),
            format!("Bearer {good} "),
            format!("Bearer {good}x"),
            format!("Bearer {}", &good[1..]),
            format!("Bearer {}", good.to_uppercase()),
            format!("Bearer tlk_ABCDEFGHIJKL{secret}"),
            format!("Bearer tlk_abcdefghijkl{}", secret.replace('_', "+")),
            format!("Bearer {}", "ü".repeat(TOKEN_CHARS / 2)),
            format!("Bearer {}", "x".repeat(100_000)),
        ] {
            let error = find(&[&bad]).unwrap_err();
            assert!(matches!(error, Error::TokenMalformed { .. }), "{bad}");
            assert!(!error.to_string().contains(secret), "{error}");
        }
        let header = format!("Bearer {good}");
        assert!(matches!(find(&[&header, &header]), Err(Error::TokenMalformed { .. })));
    }

    #[test]
    fn the_secret_is_not_in_the_debug_text() {
        let minted = Minted::new().unwrap();
        assert!(!format!("{minted:?}").contains(&minted.text[17..]));
    }
}
