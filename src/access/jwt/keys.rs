//! The public keys of a provider: a JSON Web Key Set (RFC 7517).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;

use super::algorithm::Algorithm;

/// The most keys that are read from a set.
const MAX_KEYS: usize = 100;

/// The keys of a set that can check signatures.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Keys(Vec<Key>);

/// A public key.
#[derive(PartialEq, Eq)]
struct Key {
    id: Option<String>,
    /// The only algorithm that the key is for, if the set says so.
    algorithm: Option<Algorithm>,
    material: Material,
}

#[derive(PartialEq, Eq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// What the keys of a set say of a signature.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Check {
    Valid,
    Wrong,
    /// No key has the key id.
    UnknownKey,
    /// The key is for another algorithm.
    Misfit,
}

/// The fields of a key as they are written.
#[derive(Deserialize)]
struct Written {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Keys {
    /// Reads a set, and leaves out the keys that are not for signatures or of an unknown kind.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let set: Set = serde_json::from_slice(json)
            .map_err(|error| format!("is not a JSON Web Key Set: {error}"))?;
        if set.keys.len() > MAX_KEYS {
            return Err(format!("has {} keys, and the limit is {MAX_KEYS}", set.keys.len()));
        }
        let written = set.keys.into_iter().map(serde_json::from_value::<Written>);
        let keys: Vec<Key> = written.filter_map(|key| read(key.ok()?)).collect();
        if keys.is_empty() {
            return Err("has no key that can check signatures (RSA, P-256, P-384, Ed25519)".into());
        }
        Ok(Self(keys))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks a signature with the keys of this id. Without an id there must be only one key.
    pub(super) fn check(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        signed: &[u8],
        signature: &[u8],
    ) -> Check {
        let mut outcome = Check::UnknownKey;
        let named = self.0.iter().filter(|key| match id {
            Some(id) => key.id.as_deref() == Some(id),
            None => self.0.len() == 1,
        });
        for key in named {
            match key.check(algorithm, signed, signature) {
                Check::Valid => return Check::Valid,
                other => outcome = other,
            }
        }
        outcome
    }
}

impl Key {
    fn check(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> Check {
        if self.algorithm.is_some_and(|only| only != algorithm) {
            return Check::Misfit;
        }
        let checked = match (&self.material, algorithm) {
            (Material::Rsa { n, e }, _) => {
                let Some(parameters) = rsa_parameters(algorithm) else {
                    return Check::Misfit;
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature)
            }
            (Material::P256(point), Algorithm::Es256) => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
                    .verify(signed, signature)
            }
            (Material::P384(point), Algorithm::Es384) => {
                UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point)
                    .verify(signed, signature)
            }
            (Material::Ed25519(point), Algorithm::EdDsa) => {
                UnparsedPublicKey::new(&signature::ED25519, point).verify(signed, signature)
            }
            _ => return Check::Misfit,
        };
        match checked {
            Ok(()) => Check::Valid,
            Err(_) => Check::Wrong,
        }
    }
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => None,
    }
}

/// The key, unless it is not for signatures or of an unknown kind.
fn read(written: Written) -> Option<Key> {
    if written.purpose.is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    let algorithm = match written.alg {
        Some(name) => Some(name.parse().ok()?),
        None => None,
    };
    let (x, y) = (written.x.as_deref(), written.y.as_deref());
    let material = match (written.kty.as_str(), written.crv.as_deref()) {
        ("RSA", _) => {
            Material::Rsa { n: number(written.n.as_deref())?, e: number(written.e.as_deref())? }
        }
        ("EC", Some("P-256")) => Material::P256(point(x, y, 32)?),
        ("EC", Some("P-384")) => Material::P384(point(x, y, 48)?),
        ("OKP", Some("Ed25519")) => Material::Ed25519(coordinate(x, 32)?),
        _ => return None,
    };
    Some(Key { id: written.kid, algorithm, material })
}

/// A number without leading zeros, as `ring` expects it.
fn number(text: Option<&str>) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text?).ok()?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Some(bytes[zeros..].to_vec())
}

/// An uncompressed point.
fn point(x: Option<&str>, y: Option<&str>, size: usize) -> Option<Vec<u8>> {
    Some([vec![4], coordinate(x, size)?, coordinate(y, size)?].concat())
}

fn coordinate(text: Option<&str>, size: usize) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text?).ok().filter(|bytes| bytes.len() == size)
}
