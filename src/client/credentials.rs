//! Who is calling: a bearer token.
//!
//! A token in a file may be replaced while the client runs. The file is read when the client
//! connects, and again before a call if it was last read more than a second ago. If it then cannot
//! be read or holds no token, as while it is being written, calls go on with the token before.

use std::{
    fmt, fs,
    io::{self, Read as _},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

use super::error::ConnectError;

/// How long a call may use a token before its file is read again.
const READ_INTERVAL: Duration = Duration::from_secs(1);

/// The most bytes of a token's file. A broker refuses far shorter tokens.
const MAX_FILE_BYTES: u64 = 8 * 1024;

/// Where a client's token comes from.
#[derive(Clone)]
pub(super) enum Token {
    /// The token itself.
    Text(String),
    /// A file that holds it.
    File(PathBuf),
}

/// A bearer token that is sent with every call, or none.
#[derive(Clone, Default)]
pub struct Credentials {
    authorization: Option<Authorization>,
}

#[derive(Clone)]
enum Authorization {
    Fixed(MetadataValue<Ascii>),
    File(Arc<TokenFile>),
}

struct TokenFile {
    path: PathBuf,
    current: Mutex<Current>,
}

struct Current {
    authorization: MetadataValue<Ascii>,
    read: Instant,
    /// How often another token was found in the file.
    replacements: u64,
}

impl Credentials {
    pub(super) fn new(token: Option<&Token>) -> Result<Self, ConnectError> {
        let authorization = token.map(|token| match token {
            Token::Text(token) => {
                let read = authorization(token).map_err(|reason| refused("token", reason));
                read.map(Authorization::Fixed)
            }
            Token::File(path) => {
                let opened = TokenFile::open(path);
                opened.map(|file| Authorization::File(Arc::new(file)))
            }
        });
        Ok(Self { authorization: authorization.transpose()? })
    }

    /// How often the token was replaced since the client connected.
    pub(super) fn replacements(&self) -> u64 {
        match &self.authorization {
            Some(Authorization::File(file)) => file.current.lock().replacements,
            _ => 0,
        }
    }

    /// Reads the token's file, if there is one; returns whether the token was replaced since the
    /// number of replacements was this one.
    pub(super) fn replaced_since(&self, replacements: u64) -> bool {
        match &self.authorization {
            Some(Authorization::File(file)) => {
                let mut current = file.current.lock();
                file.read_again(&mut current);
                current.replacements > replacements
            }
            _ => false,
        }
    }

    fn value(&self) -> Option<MetadataValue<Ascii>> {
        match self.authorization.as_ref()? {
            Authorization::Fixed(value) => Some(value.clone()),
            Authorization::File(file) => Some(file.value()),
        }
    }
}

impl TokenFile {
    fn open(path: &Path) -> Result<Self, ConnectError> {
        let authorization = read(path)
            .map_err(|reason| refused("token file", format!("{}: {reason}", path.display())))?;
        let current = Current { authorization, read: Instant::now(), replacements: 0 };
        Ok(Self { path: path.to_owned(), current: Mutex::new(current) })
    }

    fn value(&self) -> MetadataValue<Ascii> {
        let mut current = self.current.lock();
        if current.read.elapsed() > READ_INTERVAL {
            self.read_again(&mut current);
        }
        current.authorization.clone()
    }

    fn read_again(&self, current: &mut Current) {
        current.read = Instant::now();
        // Opening a named pipe would wait for somebody who writes to it.
        if !fs::metadata(&self.path).is_ok_and(|metadata| metadata.is_file()) {
            return;
        }
        match read(&self.path) {
            Ok(authorization) if authorization != current.authorization => {
                current.authorization = authorization;
                current.replacements += 1;
            }
            Ok(_) => {}
            Err(reason) => {
                let path = self.path.display();
                tracing::warn!(%path, error = reason, "read the token again");
            }
        }
    }
}

fn read(path: &Path) -> Result<MetadataValue<Ascii>, String> {
    let read = || {
        let mut text = String::new();
        fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
        io::Result::Ok(text)
    };
    let text = read().map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("it has more than {MAX_FILE_BYTES} bytes"));
    }
    authorization(text.trim())
}

/// The metadata of a token, or what is wrong with the token, without the token itself.
fn authorization(token: &str) -> Result<MetadataValue<Ascii>, String> {
    // It may come from a variable that was not set.
    if token.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    let mut value = MetadataValue::try_from(format!("Bearer {token}"))
        .map_err(|_| "it holds characters that are not allowed in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

fn refused(what: &'static str, reason: String) -> ConnectError {
    ConnectError::Credentials { what, reason }
}

/// Whether a URL's host is this machine, so that nobody on a network can read what is sent there.
pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(authorization) = self.value() {
            request.metadata_mut().insert("authorization", authorization);
        }
        #[cfg(feature = "otel")]
        super::trace::pass_on(request.metadata_mut());
        Ok(request)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("token", &self.authorization.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(credentials: &mut Credentials) -> String {
        let request = credentials.call(Request::new(())).unwrap();
        request.metadata().get("authorization").unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn a_replaced_file_replaces_the_token_and_a_broken_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "first\n").unwrap();
        let mut credentials = Credentials::new(Some(&Token::File(path.clone()))).unwrap();
        assert_eq!(sent(&mut credentials), "Bearer first");
        assert!(!credentials.replaced_since(0));
        fs::write(&path, "second").unwrap();
        assert!(credentials.replaced_since(0));
        assert_eq!(sent(&mut credentials), "Bearer second");
        assert_eq!(credentials.replacements(), 1);
        for broken in [&b""[..], b" \n", b"two\nlines", b"\xff", &[b'x'; 9000]] {
            fs::write(&path, broken).unwrap();
            assert!(!credentials.replaced_since(1));
            assert_eq!(sent(&mut credentials), "Bearer second");
        }
        fs::remove_file(&path).unwrap();
        assert!(!credentials.replaced_since(1));
        assert_eq!(sent(&mut credentials), "Bearer second");
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in
            ["127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]", "localhost", "LOCALHOST"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["0.0.0.0", "10.0.0.1", "[::]", "localhost.example", "127.0.0.1.example", "a"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
