//! Why a token does not count.

/// Why a token is refused. The texts never hold a part of the token, except for the names of its
/// claims.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It cannot be read.
    #[error("the token is not a valid JWT: {0}")]
    Malformed(&'static str),
    /// Its algorithm is not allowed, or does not fit its key.
    #[error("the token's algorithm is not allowed")]
    Algorithm,
    /// No key of the set has its key id.
    #[error("no known key has the token's key id")]
    UnknownKey,
    /// The signature is wrong.
    #[error("the token's signature is wrong")]
    Signature,
    /// It has expired.
    #[error("the token has expired")]
    Expired,
    /// It is not valid yet. The clock of the broker or the issuer may be wrong.
    #[error("the token is not valid yet; check the clocks of the broker and the issuer")]
    NotYetValid,
    /// A claim is missing, or is not what this broker expects.
    #[error("the token's claim `{0}` is missing, or is not the one that this broker expects")]
    Claim(String),
    /// No keys could be loaded so far, so that nothing can be checked.
    #[error("the issuer's keys could not be loaded yet")]
    NoKeys,
}
