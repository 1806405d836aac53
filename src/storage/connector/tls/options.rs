//! What a URL says about TLS, and what that means for each of its servers.
//!
//! The words are libpq's, with one difference: nothing is sent unencrypted to another machine unless
//! the URL says `sslmode=disable`.

use std::{net::IpAddr, path::PathBuf};

use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation};

/// A URL's parameters for TLS.
#[derive(Clone, Debug)]
pub(crate) struct TlsOptions {
    mode: Option<Mode>,
    /// Whose certificates are trusted; without them, none is verified.
    pub roots: Option<Roots>,
    /// What the broker identifies itself with, if anything.
    pub identity: Option<Identity>,
    pub channel_binding: ChannelBinding,
    pub negotiation: SslNegotiation,
}

/// The keywords of `sslmode`; `allow` counts as `prefer`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Where the certificates of authorities come from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Roots {
    System,
    File(PathBuf),
}

/// The files of the broker's own certificate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl TlsOptions {
    /// The names of these parameters.
    pub(crate) const NAMES: [&str; 6] =
        ["sslmode", "sslrootcert", "sslcert", "sslkey", "channel_binding", "sslnegotiation"];

    /// Reads the parameters; of several with one name, the last one counts. Errors do not repeat a
    /// keyword, which may be the end of a password.
    pub(crate) fn parse<'a>(
        given: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, String> {
        let mut options = Self::none();
        let (mut certificate, mut key) = (None, None);
        for (name, value) in given {
            if value.trim().is_empty() {
                return Err(format!("its parameter {name} is empty"));
            }
            match name {
                "sslmode" => options.mode = Some(Mode::parse(value)?),
                "sslrootcert" if value == "system" => options.roots = Some(Roots::System),
                "sslrootcert" => options.roots = Some(Roots::File(value.into())),
                "sslcert" => certificate = Some(PathBuf::from(value)),
                "sslkey" => key = Some(PathBuf::from(value)),
                "channel_binding" => options.channel_binding = parse_channel_binding(value)?,
                "sslnegotiation" => options.negotiation = parse_negotiation(value)?,
                _ => {}
            }
        }
        options.identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
            (None, None) => None,
            (Some(_), None) => return Err("it has sslcert without sslkey".to_owned()),
            (None, Some(_)) => return Err("it has sslkey without sslcert".to_owned()),
        };
        options.check()?;
        Ok(options)
    }

    /// What a URL without any of the parameters means.
    fn none() -> Self {
        Self {
            mode: None,
            roots: None,
            identity: None,
            channel_binding: ChannelBinding::Prefer,
            negotiation: SslNegotiation::Postgres,
        }
    }

    /// Refuses parameters that contradict each other.
    fn check(&self) -> Result<(), String> {
        let is_weak = matches!(self.mode, Some(Mode::Disable | Mode::Prefer));
        let verifies = matches!(self.mode, Some(Mode::VerifyCa | Mode::VerifyFull));
        if verifies && self.roots.is_none() {
            Err("sslmode=verify-ca and sslmode=verify-full need sslrootcert, a file of \
                 certificates or the word system"
                .to_owned())
        } else if self.roots == Some(Roots::System)
            && self.mode.is_some_and(|mode| mode != Mode::VerifyFull)
        {
            Err("sslrootcert=system goes with no other sslmode than verify-full, as anybody can \
                 get a certificate from an authority that the system trusts"
                .to_owned())
        } else if is_weak && self.negotiation == SslNegotiation::Direct {
            Err("sslnegotiation=direct goes with sslmode=require or stronger".to_owned())
        } else if self.mode == Some(Mode::Disable)
            && self.channel_binding == ChannelBinding::Require
        {
            Err("channel_binding=require needs TLS, which sslmode=disable turns off".to_owned())
        } else {
            Ok(())
        }
    }

    /// Whether any server may be reached by TLS, so that the files are needed.
    pub(crate) fn may_use_tls(&self) -> bool {
        self.mode != Some(Mode::Disable)
    }

    /// Whether sessions with the server at this address are encrypted.
    pub(crate) fn mode_for(&self, server: IpAddr) -> SslMode {
        let is_local = server.to_canonical().is_loopback();
        match self.mode {
            Some(Mode::Disable) => SslMode::Disable,
            None if is_local && !self.asks_for_tls() => SslMode::Disable,
            Some(Mode::Prefer) if is_local && self.channel_binding != ChannelBinding::Require => {
                SslMode::Prefer
            }
            _ => SslMode::Require,
        }
    }

    /// Whether a parameter besides `sslmode` makes sense only with TLS.
    fn asks_for_tls(&self) -> bool {
        self.roots.is_some()
            || self.identity.is_some()
            || self.channel_binding == ChannelBinding::Require
            || self.negotiation == SslNegotiation::Direct
    }

    /// Whether a server's certificate must be for the name by which the URL reaches it.
    pub(crate) fn verifies_name(&self) -> bool {
        self.mode == Some(Mode::VerifyFull) || self.roots == Some(Roots::System)
    }
}

impl Mode {
    fn parse(keyword: &str) -> Result<Self, String> {
        match keyword {
            "disable" => Ok(Self::Disable),
            "allow" | "prefer" => Ok(Self::Prefer),
            "require" => Ok(Self::Require),
            "verify-ca" => Ok(Self::VerifyCa),
            "verify-full" => Ok(Self::VerifyFull),
            _ => Err("sslmode is none of disable, allow, prefer, require, verify-ca and \
                      verify-full"
                .to_owned()),
        }
    }
}

fn parse_channel_binding(keyword: &str) -> Result<ChannelBinding, String> {
    match keyword {
        "disable" => Ok(ChannelBinding::Disable),
        "prefer" => Ok(ChannelBinding::Prefer),
        "require" => Ok(ChannelBinding::Require),
        _ => Err("channel_binding is none of disable, prefer and require".to_owned()),
    }
}

fn parse_negotiation(keyword: &str) -> Result<SslNegotiation, String> {
    match keyword {
        "postgres" => Ok(SslNegotiation::Postgres),
        "direct" => Ok(SslNegotiation::Direct),
        _ => Err("sslnegotiation is neither postgres nor direct".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(parameters: &str) -> Result<TlsOptions, String> {
        TlsOptions::parse(parameters.split_whitespace().filter_map(|pair| pair.split_once('=')))
    }

    #[test]
    fn only_disable_sends_anything_unencrypted_to_another_machine() {
        use SslMode::{Disable, Prefer, Require};
        for (parameters, local, distant) in [
            ("", Disable, Require),
            ("sslmode=disable", Disable, Disable),
            ("sslmode=disable sslrootcert=/ca", Disable, Disable),
            ("sslmode=allow", Prefer, Require),
            ("sslmode=prefer", Prefer, Require),
            ("sslmode=prefer channel_binding=require", Require, Require),
            ("sslmode=require", Require, Require),
            ("sslmode=verify-ca sslrootcert=/ca", Require, Require),
            ("sslmode=verify-full sslrootcert=/ca", Require, Require),
            ("sslrootcert=system", Require, Require),
            ("sslrootcert=/ca", Require, Require),
            ("sslcert=/c sslkey=/k", Require, Require),
            ("channel_binding=require", Require, Require),
            ("sslnegotiation=direct", Require, Require),
        ] {
            let options = parse(parameters).unwrap();
            for address in ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"] {
                let mode = options.mode_for(address.parse().unwrap());
                assert_eq!(mode, local, "{parameters:?} {address}");
            }
            for address in ["192.0.2.1", "10.0.0.1", "0.0.0.0", "2001:db8::1", "fe80::1"] {
                let mode = options.mode_for(address.parse().unwrap());
                assert_eq!(mode, distant, "{parameters:?} {address}");
            }
        }
    }

    #[test]
    fn a_name_is_verified_by_verify_full_and_for_the_systems_authorities() {
        for (parameters, verifies) in [
            ("sslmode=require sslrootcert=/ca", false),
            ("sslmode=verify-ca sslrootcert=/ca", false),
            ("sslmode=verify-full sslrootcert=/ca", true),
            ("sslmode=verify-full sslrootcert=system", true),
            ("sslrootcert=system", true),
        ] {
            assert_eq!(parse(parameters).unwrap().verifies_name(), verifies, "{parameters}");
        }
    }

    #[test]
    fn parameters_that_contradict_each_other_are_refused_by_name() {
        for (parameters, problem) in [
            ("sslmode=s3cret", "sslmode is none of disable, allow"),
            ("sslmode=", "parameter sslmode is empty"),
            ("sslrootcert=", "parameter sslrootcert is empty"),
            ("channel_binding=s3cret", "channel_binding is none of"),
            ("sslnegotiation=s3cret", "sslnegotiation is neither"),
            ("sslmode=verify-ca", "need sslrootcert"),
            ("sslmode=verify-full", "need sslrootcert"),
            ("sslmode=require sslrootcert=system", "no other sslmode than verify-full"),
            ("sslmode=prefer sslnegotiation=direct", "goes with sslmode=require"),
            ("sslmode=disable channel_binding=require", "needs TLS"),
            ("sslcert=/c", "sslcert without sslkey"),
            ("sslkey=/k", "sslkey without sslcert"),
        ] {
            let refused = parse(parameters).unwrap_err();
            assert!(refused.contains(problem), "{parameters}: {refused}");
            assert!(!refused.contains("s3cret"), "{refused}");
        }
    }
}
