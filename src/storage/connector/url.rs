//! Database URLs: parses them, and explains why one cannot be used. No error shows a password, nor
//! a part of one that was not percent-encoded.

use std::str::FromStr;

use tokio_postgres::{Config, config::Host};

use crate::storage::error::{self, Error};

/// Part of every error about a URL that cannot be read.
const FORM: &str = "a database URL has the form postgresql://USER:PASSWORD@HOST:PORT/DATABASE";

/// Parameters of libpq that the driver does not know. Errors repeat only these names: any other
/// unknown name may be the end of a password.
const NOT_SUPPORTED: [&str; 10] = [
    "client_encoding",
    "fallback_application_name",
    "gssencmode",
    "krbsrvname",
    "keepalives_count",
    "passfile",
    "replication",
    "require_auth",
    "service",
    "servicefile",
];

/// Parameters that configure TLS.
const TLS_PARAMETERS: [&str; 9] = [
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
    "sslcertmode",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
];

/// Checks that a database URL can be used.
///
/// # Errors
///
/// [`Error::Url`] says why not.
pub fn check_url(url: &str) -> Result<(), Error> {
    parse(url).map(drop)
}

pub(crate) fn parse(url: &str) -> Result<Config, Error> {
    if let Some(asked) = parameters(url).find_map(|(name, value)| asks_for_tls(name, value)) {
        return Err(Error::Url(format!(
            "{asked} asks for TLS, which this build does not speak to PostgreSQL yet; \
             leave it out, or give sslmode=disable, where the network can be trusted"
        )));
    }
    let config = Config::from_str(url).map_err(|error| Error::Url(problem(url, &error)))?;
    let (hosts, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let (number, ports) = (hosts.len().max(addresses.len()), config.get_ports().len());
    let nameless = hosts.iter().any(|host| *host == Host::Tcp(String::new()));
    // The driver takes everything up to the first @ for the user and the password.
    let misread = hosts.iter().any(|host| matches!(host, Host::Tcp(name) if name.contains('@')));
    let problem = if number == 0 || (nameless && addresses.is_empty()) {
        format!("it names no host; {FORM}")
    } else if misread {
        format!("its password holds an @, to be written as %40; {FORM}")
    } else if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        format!("it has {} for host and {} for hostaddr", hosts.len(), addresses.len())
    } else if ports > 1 && ports != number {
        format!("it has {ports} ports for {number} hosts")
    } else {
        return Ok(config);
    };
    Err(Error::Url(problem))
}

/// Which database a URL names, without its secrets: for logs.
pub fn redacted(url: &str) -> String {
    let Ok(config) = parse(url) else { return "an unreadable URL".to_owned() };
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    let ports: Vec<String> = config.get_ports().iter().map(u16::to_string).collect();
    format!(
        "{} on {} port {} as {}",
        config.get_dbname().unwrap_or("(default)"),
        hosts.join(","),
        if ports.is_empty() { "5432".to_owned() } else { ports.join(",") },
        config.get_user().unwrap_or("(default)")
    )
}

fn problem(url: &str, error: &tokio_postgres::Error) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if !scheme.is_empty() && !["postgresql", "postgres"].contains(&scheme) {
        return format!("it does not begin with postgresql://; {FORM}");
    }
    if scheme.is_empty() && !rest.contains('=') {
        return FORM.to_owned();
    }
    if let Some((name, _)) = parameters(url).find(|(name, _)| NOT_SUPPORTED.contains(name)) {
        return format!("this build does not know the parameter {name}");
    }
    let text = error::describe(error);
    match text.find("invalid value for option `") {
        // The driver names only options that it knows, so this shows no part of a password.
        Some(at) => format!("{}; {FORM}", &text[at..]),
        None => format!("special characters must be percent-encoded; {FORM}"),
    }
}

/// A parameter that requires TLS. Its value is shown only if it is one of the listed keywords.
fn asks_for_tls(name: &str, value: &str) -> Option<String> {
    match (name, value) {
        ("sslmode", "require" | "verify-ca" | "verify-full")
        | ("channel_binding", "require")
        | ("sslnegotiation", "direct")
        | ("requiressl", "1") => Some(format!("{name}={value}")),
        _ => TLS_PARAMETERS.contains(&name).then(|| name.to_owned()),
    }
}

/// The names and values after a URL's question mark, or in a list of `NAME=VALUE`.
fn parameters(url: &str) -> impl Iterator<Item = (&str, &str)> {
    let (list, separator) = match url.split_once("://") {
        Some((_, rest)) => (rest.rsplit_once('?').map_or("", |(_, list)| list), '&'),
        None => (url, ' '),
    };
    let pairs = list.split(separator).filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.trim(), value.trim().trim_matches('\'')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        match parse(url) {
            Err(Error::Url(problem)) => problem,
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn a_redacted_url_names_the_database_and_no_secret() {
        let shown = redacted("postgresql://ann:s3cret@db.example:5433/log");
        assert_eq!(shown, "log on db.example port 5433 as ann");
        assert_eq!(redacted("nonsense"), "an unreadable URL");
    }

    #[test]
    fn the_error_for_a_malformed_url_says_what_a_url_looks_like() {
        for url in ["nonsense", "mysql://x", "", "postgres://", "postgresql:///db", "user=ann"] {
            assert!(refusal(url).contains(FORM), "{url}: {}", refusal(url));
        }
        assert!(refusal("mysql://x").contains("does not begin with postgresql://"));
        assert!(refusal("postgres://").contains("names no host"));
        let refused = refusal("postgresql://h:port/d");
        assert!(refused.contains("invalid value for option `port`"), "{refused}");
        let refused = refusal("postgresql://h/d?passfile=x");
        assert!(refused.contains("does not know the parameter passfile"), "{refused}");
        assert!(refusal("host=a,b,c port=1,2").contains("2 ports for 3 hosts"));
        assert!(refusal("host=a,b hostaddr=127.0.0.1").contains("2 for host and 1 for hostaddr"));
    }

    #[test]
    fn the_refusal_of_tls_names_the_parameter_that_asks_for_it() {
        for asked in [
            "sslmode=require",
            "sslmode=verify-ca",
            "sslmode=verify-full",
            "channel_binding=require",
            "sslnegotiation=direct",
        ] {
            for url in [format!("postgresql://h/d?{asked}"), format!("host=h dbname=d {asked}")] {
                let refused = refusal(&url);
                assert!(refused.starts_with(&format!("{asked} asks for TLS")), "{url}: {refused}");
                assert!(refused.contains("does not speak"), "{refused}");
            }
        }
        for name in TLS_PARAMETERS {
            let refused = refusal(&format!("postgresql://h/d?{name}=/s3cret"));
            assert!(refused.starts_with(&format!("{name} asks for TLS")), "{refused}");
            assert!(!refused.contains("s3cret"), "{refused}");
        }
        for mode in ["disable", "prefer"] {
            assert!(parse(&format!("postgresql://h/d?sslmode={mode}")).is_ok());
        }
    }

    #[test]
    fn no_error_shows_a_password() {
        for url in [
            "postgresql://u:s3cret@h:port/d",
            "postgresql://u:p@h/d?s3cret=x",
            "postgresql://u:p@s3cret@h/d",
            "mysql://u:s3cret@h/d",
            "host=h password=a s3cret=b",
            "host=h password='s3cret",
            "postgresql://u:s3cret@h/d?sslmode=require",
        ] {
            assert!(!refusal(url).contains("s3cret"), "{url}: {}", refusal(url));
        }
    }
}
