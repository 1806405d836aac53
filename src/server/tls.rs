//! TLS to clients: certificates that are loaded again when their files change.
//!
//! Guarantees that a broken new file leaves the certificates in use, and that connections that are
//! open stay. A client certificate is checked when its client connects, and not again.

mod certificates;
mod files;
mod identity;
mod stamp;

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use parking_lot::RwLock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self,
        pki_types::{CertificateDer, PrivateKeyDer},
    },
    server::TlsStream,
};
use tracing::{error, info, warn};

use super::options::TlsOptions;
use crate::access::PeerIdentity;
use certificates::{HTTP2, Loaded};
use files::Files;
use stamp::Stamp;

/// The protocol of the HTTP port. A client that negotiates none is taken to speak it.
const HTTP1: &[u8] = b"http/1.1";

/// How often the files are checked for changes.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// TLS with the certificates that were loaded last.
pub(super) struct Tls {
    files: Files,
    config: RwLock<Arc<rustls::ServerConfig>>,
    /// What the files were when `config` was loaded.
    loaded: Stamp,
}

impl Tls {
    /// Loads the certificates; `None` if the options name none.
    pub(super) fn load(options: &TlsOptions) -> Result<Option<Self>, crate::certificates::Error> {
        let Some(files) = Files::of(options) else { return Ok(None) };
        let stamp = Stamp::of(&files);
        let Loaded { config, problems } = certificates::load(&files)?;
        problems.iter().for_each(warn_of);
        Ok(Some(Self { files, config: RwLock::new(Arc::new(config)), loaded: stamp }))
    }

    /// TLS with the certificate and the key that a broker drew for others. There are no files to follow.
    pub(super) fn of_broker(certificate: Vec<u8>, key: Vec<u8>) -> Result<Self, rustls::Error> {
        let key = PrivateKeyDer::try_from(key)
            .map_err(|problem| rustls::Error::General(problem.to_owned()))?;
        let config = crate::certificates::server().with_no_client_auth();
        let mut config = config.with_single_cert(vec![CertificateDer::from(certificate)], key)?;
        config.alpn_protocols = vec![HTTP2.to_vec()];
        let (files, loaded) = (Files::default(), Stamp::default());
        Ok(Self { files, config: RwLock::new(Arc::new(config)), loaded })
    }

    /// Encrypts a connection. Returns who the client is, if it presented a certificate.
    pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<(TlsStream<S>, Option<PeerIdentity>)> {
        let config = self.config.read().clone();
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        if stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
            let problem = "the client did not negotiate HTTP/2 (ALPN h2)";
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        let identity = identity_of(&stream);
        Ok((stream, identity))
    }

    /// As [`Self::accept`], of a client that speaks HTTP/1.1.
    pub(super) async fn accept_http<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<(TlsStream<S>, Option<PeerIdentity>)> {
        let mut config = rustls::ServerConfig::clone(&self.config.read());
        config.alpn_protocols = vec![HTTP1.to_vec()];
        let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
        let identity = identity_of(&stream);
        Ok((stream, identity))
    }

    /// Loads the certificates again whenever their files change.
    pub(super) async fn follow_files(&self) -> Infallible {
        let mut tried = self.loaded.clone();
        let mut previous = tried.clone();
        let mut tick = tokio::time::interval(CHECK_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let files = self.files.clone();
            let Ok(stamp) = tokio::task::spawn_blocking(move || Stamp::of(&files)).await else {
                continue;
            };
            // Files that still change are left alone: a certificate may come before its key.
            let has_settled = stamp == previous;
            previous = stamp.clone();
            if has_settled && stamp != tried {
                tried = stamp;
                self.reload().await;
            }
        }
    }

    async fn reload(&self) {
        let files = self.files.clone();
        match tokio::task::spawn_blocking(move || certificates::load(&files)).await {
            Ok(Ok(Loaded { config, problems })) => {
                problems.iter().for_each(warn_of);
                *self.config.write() = Arc::new(config);
                info!("loaded the TLS certificates again");
            }
            Ok(Err(error)) => error!(%error, "keep the TLS certificates in use"),
            Err(error) => error!(%error, "keep the TLS certificates in use"),
        }
    }
}

/// Warns of a certificate that is loaded although it is out of date.
fn warn_of(error: &String) {
    warn!(error, "a TLS certificate is not valid now");
}

/// Who the client is, if it presented a certificate.
fn identity_of<S>(stream: &TlsStream<S>) -> Option<PeerIdentity> {
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(|chain| chain.first());
    certificate.map(|certificate| identity::of(certificate))
}
