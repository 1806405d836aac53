//! Checks tokens against keys and expectations.

use std::time::{Duration, SystemTime};

use super::{
    algorithm::Algorithm,
    claims::Claims,
    compact::Compact,
    keys::{Check, Keys},
    refusal::Refusal,
};

/// What a token must say.
#[derive(Clone, Debug)]
pub struct Expectations {
    /// The issuer (`iss`), exactly.
    pub issuer: String,
    /// The audience (`aud`): the token's must include it.
    pub audience: String,
    /// The claim that names the principal.
    pub principal_claim: String,
    /// The algorithms that are allowed.
    pub algorithms: Vec<Algorithm>,
    /// How far the clocks of the issuer and the broker may be apart.
    pub leeway: Duration,
}

/// Checks tokens.
#[derive(Clone, Debug)]
pub struct Verifier(Expectations);

/// What a valid token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The value of the claim that names the principal.
    pub principal: String,
    /// When the token expires, the leeway included.
    pub expires_at: SystemTime,
}

impl Verifier {
    /// Checks tokens for these expectations.
    pub fn new(expectations: Expectations) -> Self {
        Self(expectations)
    }

    /// Checks a token. Everything that it says is read only after its signature was found right.
    pub(super) fn verify(
        &self,
        token: &str,
        keys: &Keys,
        now: SystemTime,
    ) -> Result<Verified, Refusal> {
        let token = Compact::parse(token)?;
        let algorithm = token.header.alg.parse().map_err(|_| Refusal::Algorithm)?;
        if !self.0.algorithms.contains(&algorithm) {
            return Err(Refusal::Algorithm);
        }
        let id = token.header.kid.as_deref();
        match keys.check(id, algorithm, token.signed, &token.signature) {
            Check::Valid => {}
            Check::Wrong => return Err(Refusal::Signature),
            Check::Misfit => return Err(Refusal::Algorithm),
            Check::UnknownKey if keys.is_empty() => return Err(Refusal::NoKeys),
            Check::UnknownKey => return Err(Refusal::UnknownKey),
        }
        self.check(&Claims::parse(&token.claims()?)?, now)
    }

    /// Checks the claims of a token whose signature is right.
    pub(super) fn check(&self, claims: &Claims, now: SystemTime) -> Result<Verified, Refusal> {
        let Expectations { issuer, audience, principal_claim, leeway, .. } = &self.0;
        if claims.text("iss")? != issuer {
            return Err(Refusal::Claim("iss".to_owned()));
        }
        if !claims.has_audience(audience) {
            return Err(Refusal::Claim("aud".to_owned()));
        }
        let expires = claims.seconds("exp")?.ok_or_else(|| Refusal::Claim("exp".to_owned()))?;
        let expires_at = time(expires).ok_or_else(|| Refusal::Claim("exp".to_owned()))? + *leeway;
        if expires_at <= now {
            return Err(Refusal::Expired);
        }
        if let Some(not_before) = claims.seconds("nbf")? {
            let begins = time(not_before).ok_or_else(|| Refusal::Claim("nbf".to_owned()))?;
            if begins > now + *leeway {
                return Err(Refusal::NotYetValid);
            }
        }
        let principal = claims.text(principal_claim)?.to_owned();
        Ok(Verified { principal, expires_at })
    }
}

/// A time in seconds since 1970, up to the year 9999, so that times can be added without overflow.
fn time(seconds: f64) -> Option<SystemTime> {
    const YEAR_10000: f64 = 253_402_300_800.0;
    (seconds < YEAR_10000).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests;
