//! The options for tokens of an identity provider.

use std::{path::PathBuf, time::Duration};

use clap::{Args, builder::NonEmptyStringValueParser};

use crate::access::jwt::{Algorithm, Expectations, Location};

/// The options for tokens of an identity provider. Three of them go together.
#[derive(Args, Clone, Debug)]
pub struct JwtOptions {
    /// Issuer whose JSON Web Tokens are accepted: the exact value of their claim `iss`. With
    /// --auth required only.
    #[arg(long, env = "TRUNKLINE_JWT_ISSUER", value_name = "ISSUER", value_parser = NonEmptyStringValueParser::new(), requires_all = ["jwt_audience", "jwt_keys"])]
    pub jwt_issuer: Option<String>,

    /// Audience that the tokens must be for: their claim `aud` must include it.
    #[arg(long, env = "TRUNKLINE_JWT_AUDIENCE", value_name = "AUDIENCE", value_parser = NonEmptyStringValueParser::new(), requires = "jwt_issuer")]
    pub jwt_audience: Option<String>,

    /// The issuer's public keys, a JSON Web Key Set: a file or an https URL. They are loaded again
    /// every 5 seconds or 5 minutes.
    #[arg(long, env = "TRUNKLINE_JWT_KEYS", value_name = "FILE_OR_URL", requires = "jwt_issuer")]
    pub jwt_keys: Option<Location>,

    /// Certificates of the authorities to trust for the URL of the keys, in PEM [default: those of
    /// the system].
    #[arg(long, env = "TRUNKLINE_JWT_KEYS_CA", value_name = "FILE", requires = "jwt_keys")]
    pub jwt_keys_ca: Option<PathBuf>,

    /// Claim that names the principal.
    #[arg(long, env = "TRUNKLINE_JWT_CLAIM", value_name = "CLAIM", value_parser = NonEmptyStringValueParser::new(), default_value = "sub")]
    pub jwt_claim: String,

    /// Signature algorithms that are accepted, separated by commas.
    #[arg(
        long,
        env = "TRUNKLINE_JWT_ALGORITHMS",
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "RS256,ES256,EdDSA"
    )]
    pub jwt_algorithms: Vec<Algorithm>,

    /// How far the clocks of the issuer and the broker may be apart, at most 5 minutes.
    #[arg(
        long,
        env = "TRUNKLINE_JWT_LEEWAY",
        value_name = "TIME",
        default_value = "30s",
        value_parser = parse_leeway
    )]
    pub jwt_leeway: Duration,
}

impl JwtOptions {
    /// Where the keys are and what tokens must say; `None` if no tokens of an issuer are accepted.
    pub(in crate::server) fn expectations(&self) -> Option<(Location, Expectations)> {
        let expectations = Expectations {
            issuer: self.jwt_issuer.clone()?,
            audience: self.jwt_audience.clone()?,
            principal_claim: self.jwt_claim.clone(),
            algorithms: self.jwt_algorithms.clone(),
            leeway: self.jwt_leeway,
        };
        Some((self.jwt_keys.clone()?, expectations))
    }
}

fn parse_leeway(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(300);
    let leeway = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match leeway <= LONGEST {
        true => Ok(leeway),
        false => Err(format!("is {text}, and the limit is 5 minutes")),
    }
}
