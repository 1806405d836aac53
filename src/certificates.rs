//! Certificates and keys: the files in PEM that options and parameters name, and the settings of TLS
//! that all connections share.
//!
//! Errors name the file, and what named it.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};

/// The most that is read of a file; certificate bundles of systems have a quarter of this.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// A file in PEM.
#[derive(Clone, Debug)]
pub(crate) struct PemFile {
    named_by: NamedBy,
    path: PathBuf,
}

#[derive(Clone, Copy, Debug)]
enum NamedBy {
    Option(&'static str),
    Parameter(&'static str),
}

/// Why a file of certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct Error {
    file: PemFile,
    problem: String,
}

impl PemFile {
    /// A file that an option of the command names, such as `--tls-cert`.
    pub(crate) fn of_option(option: &'static str, path: &Path) -> Self {
        Self { named_by: NamedBy::Option(option), path: path.to_owned() }
    }

    /// A file that a parameter of a URL names, such as `sslcert`.
    pub(crate) fn of_parameter(parameter: &'static str, path: &Path) -> Self {
        Self { named_by: NamedBy::Parameter(parameter), path: path.to_owned() }
    }

    /// The file's certificates, of which there is at least one.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        self.certificates_in(&self.read()?)
    }

    /// The file as it is, which holds at least one certificate.
    pub(crate) fn text(&self) -> Result<Vec<u8>, Error> {
        let text = self.read()?;
        self.certificates_in(&text)?;
        Ok(text)
    }

    fn certificates_in(&self, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        match certificates {
            Ok(certificates) if certificates.is_empty() => {
                Err(self.error("it contains no certificate in PEM"))
            }
            Ok(certificates) => Ok(certificates),
            Err(error) => Err(self.error(error)),
        }
    }

    /// The file's first key.
    pub(crate) fn key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        PrivateKeyDer::from_pem_slice(&self.read()?).map_err(|error| match error {
            pem::Error::NoItemsFound => {
                self.error("it contains no private key in PEM that is not encrypted")
            }
            error => self.error(error),
        })
    }

    /// Certificates of this file, as authorities to trust.
    pub(crate) fn trust(
        &self,
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate).map_err(|error| self.error(error))?;
        }
        Ok(roots)
    }

    /// Why a certificate chain of this file and a key cannot be used together.
    pub(crate) fn misfit(&self, key: &Self, error: rustls::Error) -> Error {
        match error {
            rustls::Error::InconsistentKeys(_) => key.error(format!("it is not the key of {self}")),
            error => self.error(error),
        }
    }

    pub(crate) fn error(&self, problem: impl ToString) -> Error {
        Error { file: self.clone(), problem: problem.to_string() }
    }

    fn read(&self) -> Result<Vec<u8>, Error> {
        let metadata = fs::metadata(&self.path).map_err(|error| self.error(error))?;
        if !metadata.is_file() {
            return Err(self.error("it is not a file"));
        }
        if metadata.len() > MAX_FILE_BYTES {
            return Err(self.error(format!("it is larger than {MAX_FILE_BYTES} bytes")));
        }
        fs::read(&self.path).map_err(|error| self.error(error))
    }
}

/// As an operator wrote it: `--tls-cert FILE` or `sslcert=FILE`.
impl fmt::Display for PemFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.named_by {
            NamedBy::Option(option) => write!(f, "{option} {path}"),
            NamedBy::Parameter(parameter) => write!(f, "{parameter}={path}"),
        }
    }
}

/// The cryptography of all connections.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The settings of connections that the broker makes.
pub(crate) fn client() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions of TLS")
}

/// The settings of connections that the broker accepts.
pub(crate) fn server() -> ConfigBuilder<ServerConfig, WantsVerifier> {
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions of TLS")
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const NAMED: [fn(&Path) -> PemFile; 2] = [
        |path| PemFile::of_option("--tls-cert", path),
        |path| PemFile::of_parameter("sslcert", path),
    ];

    #[test]
    fn errors_name_the_file_as_the_operator_did() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.pem");
        let [option, parameter] = NAMED.map(|named| named(&path));
        let name = path.display();
        let missing = option.certificates().unwrap_err().to_string();
        assert!(missing.starts_with(&format!("--tls-cert {name}: No such file")), "{missing}");
        let missing = parameter.key().unwrap_err().to_string();
        assert!(missing.starts_with(&format!("sslcert={name}: No such file")), "{missing}");

        for (content, problem) in [
            (String::new(), "it contains no certificate in PEM"),
            ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n".to_owned(), "base64"),
            (" ".repeat(1024 * 1024 + 1), "it is larger than 1048576 bytes"),
        ] {
            fs::write(&path, content).unwrap();
            let error = option.certificates().unwrap_err().to_string();
            assert!(error.starts_with(&format!("--tls-cert {name}: ")), "{error}");
            assert!(error.contains(problem), "{error}");
        }
        let error = NAMED[0](folder.path()).key().unwrap_err().to_string();
        assert!(error.ends_with(": it is not a file"), "{error}");
    }

    #[test]
    fn a_key_is_read_unless_it_is_encrypted_or_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let key = PemFile::of_option("--tls-key", &path);
        let pair = KeyPair::generate().unwrap();
        let encrypted = pair.serialize_pem().replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let certificate = CertificateParams::new(Vec::new()).unwrap().self_signed(&pair).unwrap();
        for text in [encrypted, certificate.pem()] {
            fs::write(&path, text).unwrap();
            let error = key.key().unwrap_err().to_string();
            assert!(error.ends_with("no private key in PEM that is not encrypted"), "{error}");
        }
        fs::write(&path, pair.serialize_pem()).unwrap();
        assert_eq!(key.key().unwrap().secret_der(), pair.serialize_der());
    }

    #[test]
    fn a_certificate_that_cannot_be_parsed_is_no_authority() {
        let file = PemFile::of_option("--jwt-keys-ca", Path::new("ca.pem"));
        let error = file.trust([CertificateDer::from(vec![1, 2, 3])]).unwrap_err().to_string();
        assert!(error.starts_with("--jwt-keys-ca ca.pem: "), "{error}");
    }
}
