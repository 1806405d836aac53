//! Stands for a server of PostgreSQL 17 or later, which speaks TLS from the first byte.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    net::{TcpListener, UnixStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{TestDatabase, certificates::Certified};

/// Decrypts what clients send, and forwards it to a database of another server.
pub struct DirectTls {
    pub port: u16,
    _tasks: JoinSet<()>,
}

impl DirectTls {
    pub async fn start(server: &Certified, database: &TestDatabase) -> Self {
        let certificate = CertificateDer::from_pem_slice(server.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(server.key.as_bytes()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        // PostgreSQL refuses a client that does not name its protocol.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let socket = database.socket_dir.join(".s.PGSQL.5432");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, socket) = (acceptor.clone(), socket.clone());
                connections.spawn(async move {
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    if client.get_ref().1.alpn_protocol() != Some(b"postgresql") {
                        return;
                    }
                    let mut server = UnixStream::connect(socket).await.unwrap();
                    // Either end may disconnect at any time.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { port, _tasks: tasks }
    }
}
