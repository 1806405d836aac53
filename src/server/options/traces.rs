//! The options for traces.

use std::path::PathBuf;

use clap::Args;

use crate::{
    certificates::PemFile,
    server::error::Error,
    traces::{TraceExport, Traces},
};

/// The options for traces.
#[derive(Args, Clone, Debug)]
pub struct TraceOptions {
    /// URL of an OpenTelemetry collector that receives traces by OTLP over gRPC, such as
    /// http://127.0.0.1:4317. Without it, nothing is traced.
    #[arg(long, env = "TRUNKLINE_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,

    /// Certificates of the authorities that sign the collector's certificate, in PEM [default: those of
    /// the system].
    #[arg(long, env = "TRUNKLINE_OTLP_CA", value_name = "FILE", requires = "otlp_endpoint")]
    pub otlp_ca: Option<PathBuf>,

    /// Share of calls to trace, from 0 to 1, of those whose clients do not say whether to. Calls and
    /// messages that a client traces are always traced.
    #[arg(
        long,
        env = "TRUNKLINE_TRACE_SAMPLING",
        value_name = "SHARE",
        default_value = "0.01",
        allow_hyphen_values = true,
        value_parser = parse_share
    )]
    pub trace_sampling: f64,
}

impl TraceOptions {
    /// Starts to trace, if it is asked for.
    pub(in crate::server) fn start(&self) -> Result<Traces, Error> {
        let Some(endpoint) = &self.otlp_endpoint else { return Ok(Traces::default()) };
        let authorities = self.otlp_ca.as_ref();
        let authorities = authorities.map(|path| PemFile::of_option("--otlp-ca", path).text());
        let export = TraceExport {
            endpoint: endpoint.clone(),
            authorities: authorities.transpose()?,
            sampling: self.trace_sampling,
        };
        Ok(Traces::start(&export)?)
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("must be a number from 0 to 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_number_from_0_to_1() {
        assert_eq!(
            (parse_share("0"), parse_share("1"), parse_share("0.25")),
            (Ok(0.0), Ok(1.0), Ok(0.25))
        );
        for wrong in ["", "-0.1", "1.1", "NaN", "inf", "1%"] {
            assert!(parse_share(wrong).is_err(), "{wrong}");
        }
    }
}
