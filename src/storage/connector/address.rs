//! The addresses of a URL's servers. One name may stand for several.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use tokio_postgres::{
    Config,
    config::{Host, LoadBalanceHosts, SslMode},
};

use crate::storage::connector::{
    refusal::{Reason, Refusal},
    tls::TlsOptions,
};

/// How long the lookup of a name may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a server listens.
#[derive(Clone, PartialEq)]
pub(crate) enum Address {
    Tcp { host: Option<String>, ip: IpAddr, port: u16 },
    Unix { folder: PathBuf, port: u16 },
}

/// All addresses that a URL names, each once, in its order or, if it asks for that, shuffled. Names
/// that cannot be looked up become refusals.
pub(crate) async fn find_addresses(config: &Config, refusals: &mut Vec<Refusal>) -> Vec<Address> {
    let (hosts, ips, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let lookups = (0..hosts.len().max(ips.len())).map(async |index| {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        match (hosts.get(index), ips.get(index)) {
            (Some(Host::Unix(folder)), None) => {
                Ok(vec![Address::Unix { folder: folder.clone(), port }])
            }
            (Some(Host::Tcp(name)), None) => look_up(name, port).await,
            (host, Some(&ip)) => {
                let host = match host {
                    Some(Host::Tcp(name)) => Some(name.clone()),
                    _ => None,
                };
                Ok(vec![Address::Tcp { host, ip, port }])
            }
            (None, None) => Ok(Vec::new()),
        }
    });
    let mut lookups = futures::future::join_all(lookups).await;
    if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
        fastrand::shuffle(&mut lookups);
    }
    let mut addresses: Vec<Address> = Vec::new();
    for found in lookups {
        match found {
            Ok(found) => {
                for address in found {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
            }
            Err(refusal) => refusals.push(refusal),
        }
    }
    addresses
}

async fn look_up(name: &str, port: u16) -> Result<Vec<Address>, Refusal> {
    let refusal = |reason| Refusal { server: format!("{name}:{port}"), reason };
    match tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((name, port))).await {
        Ok(Ok(found)) => Ok(found
            .map(|found| Address::Tcp { host: Some(name.to_owned()), ip: found.ip(), port })
            .collect()),
        Ok(Err(error)) => Err(refusal(Reason::UnknownName(error.to_string()))),
        Err(_) => Err(refusal(Reason::Silent(LOOKUP_TIMEOUT))),
    }
}

impl Address {
    /// What to request a session with at this address: everything else is the same for all.
    pub(crate) fn config(&self, all: &Config, tls: &TlsOptions, application_name: &str) -> Config {
        let mut one = Config::new();
        match self {
            Self::Tcp { host, ip, port } => {
                // A certificate is verified for this name.
                one.host(host.clone().unwrap_or_else(|| ip.to_string()));
                one.hostaddr(*ip).port(*port).ssl_mode(tls.mode_for(*ip));
            }
            Self::Unix { folder, port } => {
                // PostgreSQL has no TLS there, as nothing leaves the machine.
                one.host_path(folder).port(*port).ssl_mode(SslMode::Disable);
            }
        }
        all.get_user().map(|user| one.user(user));
        all.get_password().map(|password| one.password(password));
        all.get_dbname().map(|database| one.dbname(database));
        all.get_options().map(|options| one.options(options));
        one.application_name(application_name)
            .ssl_negotiation(tls.negotiation)
            .channel_binding(tls.channel_binding)
            .keepalives(all.get_keepalives())
            .keepalives_idle(all.get_keepalives_idle());
        all.get_keepalives_interval().map(|interval| one.keepalives_interval(interval));
        all.get_keepalives_retries().map(|retries| one.keepalives_retries(retries));
        all.get_tcp_user_timeout().map(|timeout| one.tcp_user_timeout(*timeout));
        one
    }

    /// Host and port, for people.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Tcp { host: Some(host), ip, port } if *host != ip.to_string() => {
                format!("{host}:{port} ({ip})")
            }
            Self::Tcp { ip: IpAddr::V6(ip), port, .. } => format!("[{ip}]:{port}"),
            Self::Tcp { ip, port, .. } => format!("{ip}:{port}"),
            Self::Unix { folder, port } => format!("{}/.s.PGSQL.{port}", folder.display()),
        }
    }
}
