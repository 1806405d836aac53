//! JSON Web Tokens (RFC 7519) of an identity provider, as proof of who calls.
//!
//! Guarantees that a token counts only if a key of the configured set signed it, with an algorithm
//! that the operator allows and that fits the key, for this issuer and this audience, and that it
//! has not expired. It does not know which tokens the provider has revoked: a token counts until it
//! expires, or until its key leaves the set.

mod algorithm;
mod claims;
mod compact;
mod fetch;
#[cfg(fuzzing)]
pub mod fuzzing;
mod keys;
mod location;
mod refusal;
mod source;
mod verifier;

pub use algorithm::Algorithm;
pub use location::Location;
pub use refusal::Refusal;
pub use source::{Error, KeySource};
pub use verifier::{Expectations, Verified, Verifier};
