use std::net::SocketAddr;

use clap::{ArgAction, Args, builder::BoolishValueParser};

use super::listen;

/// How many topics, and how many consumers, an overview lists unless it is told.
pub const DEFAULT_MAX_SERIES: u32 = 10_000;

/// The HTTP port.
#[derive(Args, Clone, Debug)]
pub struct HttpOptions {
    /// Address for HTTP, as HOST:PORT: metrics at /metrics, health at /livez and /readyz. Port 0
    /// takes a free one, and :PORT alone means all IPv4 addresses of this machine; `off` serves no
    /// HTTP.
    #[arg(long, env = "TRUNKLINE_HTTP", value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub http: HttpAddress,

    /// Another name that the header Host of a request may have, besides localhost; may be repeated.
    /// Where nobody has to prove who it is, requests for other names are refused.
    #[arg(long, env = "TRUNKLINE_HTTP_HOST", value_name = "NAME", value_delimiter = ',')]
    pub http_host: Vec<String>,

    /// Topics, and consumers, that metrics have series for, and that the console's overview and
    /// `trunkline top` look at: the first ones by name.
    #[arg(long, env = "TRUNKLINE_METRICS_MAX_SERIES", value_name = "N", default_value_t = DEFAULT_MAX_SERIES, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub metrics_max_series: u32,

    /// Whether metrics have series for consumers.
    #[arg(long, env = "TRUNKLINE_METRICS_CONSUMERS", value_name = "BOOL", default_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub metrics_consumers: bool,
}

/// Where HTTP is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpAddress {
    /// Nowhere.
    Off,
    /// On an address.
    On(SocketAddr),
}

impl std::str::FromStr for HttpAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            address => listen::parse(address, "127.0.0.1:8080, or off").map(Self::On),
        }
    }
}
