//! Database URLs: parses them, and explains why one cannot be used. No error shows a password, nor
//! a part of one that was not percent-encoded.

use std::str::FromStr;

use tokio_postgres::{Config, config::Host};

use crate::storage::{
    connector::{
        parameters::{parameters, take},
        tls::{TlsOptions, check_files},
    },
    error::{self, Error},
};

/// Part of every error about a URL that cannot be read.
const FORM: &str = "a database URL has the form postgresql://USER:PASSWORD@HOST:PORT/DATABASE";

/// Parameters of libpq that neither the driver nor this layer knows. Errors repeat only these names:
/// any other unknown name may be the end of a password.
const NOT_SUPPORTED: [&str; 18] = [
    "client_encoding",
    "fallback_application_name",
    "gssencmode",
    "krbsrvname",
    "keepalives_count",
    "passfile",
    "replication",
    "require_auth",
    "requiressl",
    "service",
    "servicefile",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcertmode",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
    "sslsni",
];

/// What a URL says.
pub(crate) struct DatabaseUrl {
    /// All but what concerns TLS.
    pub config: Config,
    pub tls: TlsOptions,
}

/// Checks that a database URL can be used, with the files that it names.
///
/// # Errors
///
/// [`Error::Url`] says why not.
pub fn check_url(url: &str) -> Result<(), Error> {
    check_files(&parse(url)?.tls).map_err(Error::Url)
}

pub(crate) fn parse(url: &str) -> Result<DatabaseUrl, Error> {
    // The driver knows only some of the words for TLS.
    let (rest, for_tls) = take(url, &TlsOptions::NAMES);
    let config = Config::from_str(&rest).map_err(|error| Error::Url(problem(&rest, &error)))?;
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
        let pairs = for_tls.iter().map(|parameter| (parameter.name, parameter.value.as_str()));
        let tls = TlsOptions::parse(pairs).map_err(Error::Url)?;
        return Ok(DatabaseUrl { config, tls });
    };
    Err(Error::Url(problem))
}

/// Which database a URL names, without its secrets: for logs.
pub fn redacted(url: &str) -> String {
    let Ok(DatabaseUrl { config, .. }) = parse(url) else {
        return "an unreadable URL".to_owned();
    };
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
    let given = parameters(url);
    if let Some(unknown) = given.iter().find(|given| NOT_SUPPORTED.contains(&given.name)) {
        return format!("this build does not know the parameter {}", unknown.name);
    }
    let text = error::describe(error);
    match text.find("invalid value for option `") {
        // The driver names only options that it knows, so this shows no part of a password.
        Some(at) => format!("{}; {FORM}", &text[at..]),
        None => format!("special characters must be percent-encoded; {FORM}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        match parse(url) {
            Err(Error::Url(problem)) => problem,
            Err(other) => panic!("{url}: {other}"),
            Ok(_) => panic!("{url}: a refusal expected"),
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
    fn a_url_may_say_everything_about_tls_in_both_forms() {
        for parameters in [
            "sslmode=disable",
            "sslmode=verify-full sslrootcert=/ca",
            "sslrootcert=system channel_binding=require sslnegotiation=direct",
            "sslmode=require sslcert=/c sslkey=/k application_name=x",
        ] {
            let of_url = format!("postgresql://h/d?{}", parameters.replace(' ', "&"));
            for url in [of_url, format!("host=h {parameters} dbname=d")] {
                assert_eq!(parse(&url).unwrap().config.get_dbname(), Some("d"), "{url}");
            }
        }
        assert!(refusal("postgresql://h/d?sslmode=verify-full").contains("need sslrootcert"));
        let refused = refusal("host=h sslcrl=/s3cret");
        assert!(refused.contains("does not know the parameter sslcrl"), "{refused}");
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
            "postgresql://u:s3cret@h/d?sslmode=verify-full",
            "postgresql://u:p?sslmode=s3cret",
            "host=h password=a sslmode=s3cret",
        ] {
            assert!(!refusal(url).contains("s3cret"), "{url}: {}", refusal(url));
        }
    }
}
