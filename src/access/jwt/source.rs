//! The keys of an identity provider, kept up to date, and the tokens that they signed.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    fetch,
    keys::Keys,
    location::Location,
    refusal::Refusal,
    verifier::{Verified, Verifier},
};
use crate::{
    access::token::{self, Hash},
    certificates::{self, PemFile},
};

/// How often the keys are loaded anew.
const FILE_INTERVAL: Duration = Duration::from_secs(5);
const URL_INTERVAL: Duration = Duration::from_secs(300);

/// How soon the keys may be loaded again because a token names an unknown one, so that strangers who
/// invent key ids cause no more requests than this.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(10);

/// How many tokens that were found valid are remembered, so that their signature is checked once.
const MAX_REMEMBERED: usize = 8_192;

/// Checks tokens with keys that it keeps up to date.
pub struct KeySource {
    location: Location,
    tls: Arc<ClientConfig>,
    verifier: Verifier,
    keys: RwLock<Keys>,
    /// When the keys were last asked for; held while they are.
    asked: tokio::sync::Mutex<Instant>,
    /// The valid tokens, by their SHA-256.
    remembered: Mutex<HashMap<Hash, Verified>>,
}

/// Why a broker that was told to accept JWTs cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key set's file is missing, unreadable or malformed.
    #[error("--jwt-keys {}: {problem}", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The file of certificate authorities is missing, unreadable or malformed.
    #[error(transparent)]
    Authorities(#[from] certificates::Error),
}

impl KeySource {
    /// Loads the keys. If a URL does not answer, the source starts without keys and refuses tokens
    /// until it does. `authorities` is a file with the certificate authorities to trust in place of
    /// the system's.
    pub async fn start(
        location: Location,
        authorities: Option<&Path>,
        verifier: Verifier,
    ) -> Result<Arc<Self>, Error> {
        let source = Self {
            tls: Arc::new(tls(authorities)?),
            location,
            verifier,
            keys: RwLock::default(),
            asked: tokio::sync::Mutex::new(Instant::now()),
            remembered: Mutex::default(),
        };
        if let (Err(problem), Location::File(path)) = (source.load().await, &source.location) {
            return Err(Error::Keys { path: path.clone(), problem });
        }
        Ok(Arc::new(source))
    }

    /// Keeps the keys up to date until `stopping`.
    pub async fn follow(self: Arc<Self>, stopping: CancellationToken) {
        let interval = match self.location {
            Location::File(_) => FILE_INTERVAL,
            Location::Url(_) => URL_INTERVAL,
        };
        let following = async {
            loop {
                // Without keys nobody gets in, so ask again soon.
                let none = self.keys.read().is_empty();
                tokio::time::sleep(if none { UNKNOWN_KEY_INTERVAL } else { interval }).await;
                let mut asked = self.asked.lock().await;
                *asked = Instant::now();
                // The keys of before stay, and `load` has said why.
                let _ = self.load().await;
            }
        };
        stopping.run_until_cancelled(following).await;
    }

    /// Checks a token.
    pub async fn verify(&self, token: &str) -> Result<Verified, Refusal> {
        match self.verify_with_known_keys(token) {
            Err(Refusal::UnknownKey | Refusal::NoKeys) if self.load_if_due().await => {
                self.verify_with_known_keys(token)
            }
            verified => verified,
        }
    }

    /// Checks a token without waiting for keys that are not known yet.
    pub fn verify_with_known_keys(&self, token: &str) -> Result<Verified, Refusal> {
        let hash = token::hash(token);
        let now = SystemTime::now();
        if let Some(verified) = self.remembered.lock().get(&hash) {
            return match verified.expires_at > now {
                true => Ok(verified.clone()),
                false => Err(Refusal::Expired),
            };
        }
        self.verify_now(token, hash, now)
    }

    fn verify_now(&self, token: &str, hash: Hash, now: SystemTime) -> Result<Verified, Refusal> {
        // Held while the token is remembered, so that a token of a key that is being removed is not
        // remembered after the others were forgotten.
        let keys = self.keys.read();
        let verified = self.verifier.verify(token, &keys, now)?;
        let mut remembered = self.remembered.lock();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(hash, verified.clone());
        Ok(verified)
    }

    /// Loads the keys because one is unknown, unless that was done shortly before or is under way.
    async fn load_if_due(&self) -> bool {
        let Ok(mut asked) = self.asked.try_lock() else {
            return false;
        };
        if asked.elapsed() < UNKNOWN_KEY_INTERVAL {
            return false;
        }
        *asked = Instant::now();
        self.load().await.is_ok()
    }

    /// Loads the keys, and keeps those of before if that fails.
    async fn load(&self) -> Result<(), String> {
        let loaded = fetch::fetch(&self.location, &self.tls).await;
        match loaded.and_then(|json| Keys::parse(&json)) {
            Ok(keys) => {
                let mut current = self.keys.write();
                if *current != keys {
                    info!(keys = keys.len(), location = %self.location, "loaded the issuer's keys");
                    *current = keys;
                    self.remembered.lock().clear();
                }
                Ok(())
            }
            Err(error) => {
                warn!(location = %self.location, error, "load the issuer's keys");
                Err(error)
            }
        }
    }
}

/// Trusts the authorities of a file, or those of the system.
fn tls(authorities: Option<&Path>) -> Result<ClientConfig, certificates::Error> {
    let roots = match authorities {
        Some(path) => {
            let file = PemFile::of_option("--jwt-keys-ca", path);
            file.trust(file.certificates()?)?
        }
        None => {
            let mut roots = RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            for error in found.errors {
                warn!(%error, "read the system's certificate authorities");
            }
            roots.add_parsable_certificates(found.certs);
            roots
        }
    };
    Ok(certificates::client().with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests;
