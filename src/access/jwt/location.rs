//! Where a key set is.

use std::{fmt, path::PathBuf, str::FromStr};

use hyper::Uri;

/// A file, or an https URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file.
    File(PathBuf),
    /// A URL that begins with `https://` and has a host.
    Url(Uri),
}

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains("://") {
            return match text {
                "" => Err("is empty".to_owned()),
                path => Ok(Self::File(path.into())),
            };
        }
        let url: Uri = text.parse().map_err(|error| format!("is not a URL: {error}"))?;
        if url.scheme_str() != Some("https") {
            return Err(
                "must begin with https://, because whoever can change the keys on their way \
                        can pass for anybody"
                    .to_owned(),
            );
        }
        if url.authority().is_none_or(|authority| authority.as_str().contains('@')) {
            return Err("must hold a host, and no user or password".to_owned());
        }
        Ok(Self::Url(url))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => url.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_set_is_in_a_file_or_at_an_https_url() {
        assert_eq!("/etc/keys.json".parse(), Ok(Location::File("/etc/keys.json".into())));
        assert!(matches!("https://id.example/keys?v=1".parse(), Ok(Location::Url(_))));
        for bad in ["", "http://id.example/keys", "ftp://x/y", "https://", "https://u:p@host/"] {
            assert!(bad.parse::<Location>().is_err(), "{bad}");
        }
    }
}
