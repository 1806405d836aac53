//! TLS to PostgreSQL, by rustls: what a URL asks for, the files it names, and the handshake.

mod certificate_hash;
mod failure;
mod files;
mod options;
mod stream;
mod verifier;

pub(super) use failure::{Failure, explain};
pub(super) use files::{TlsFiles, check_files};
pub(super) use options::TlsOptions;
pub(super) use stream::{MakeTls, TlsStream};
