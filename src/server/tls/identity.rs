//! Reads who a client is from its certificate.

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

use crate::access::PeerIdentity;

/// Names that are longer than this are not taken. URIs of SPIFFE have at most as much.
const MAX_NAME_BYTES: usize = 2_048;

/// The subject alternative names of a verified certificate that are DNS names, URIs or email
/// addresses, as they are written there. The subject itself (DN) is not taken: how it is written
/// is ambiguous.
pub(super) fn of(certificate: &CertificateDer<'_>) -> PeerIdentity {
    let names = match parse_x509_certificate(certificate) {
        Ok((_, certificate)) => match certificate.subject_alternative_name() {
            Ok(Some(names)) => names.value.general_names.iter().filter_map(text).collect(),
            Ok(None) | Err(_) => Vec::new(),
        },
        Err(_) => Vec::new(),
    };
    PeerIdentity(names.into())
}

fn text(name: &GeneralName<'_>) -> Option<String> {
    let (GeneralName::DNSName(text) | GeneralName::URI(text) | GeneralName::RFC822Name(text)) =
        name
    else {
        return None;
    };
    // What these kinds of names consist of. Anything else could deceive whoever reads it in a log.
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    (!text.is_empty() && is_plain && text.len() <= MAX_NAME_BYTES).then(|| (*text).to_owned())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn a_client_is_its_subject_alternative_names_and_never_its_subject() {
        let mut params = CertificateParams::new(vec!["billing.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "admin");
        params.subject_alt_names.extend([
            SanType::URI("spiffe://example/billing".try_into().unwrap()),
            SanType::Rfc822Name("billing@example".try_into().unwrap()),
            SanType::IpAddress("10.0.0.1".parse().unwrap()),
            SanType::URI("x".repeat(MAX_NAME_BYTES + 1).try_into().unwrap()),
            SanType::DnsName("line\nbreak".try_into().unwrap()),
        ]);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let PeerIdentity(names) = of(certificate.der());
        assert_eq!(*names, ["billing.example", "spiffe://example/billing", "billing@example"]);
    }

    #[test]
    fn a_certificate_without_such_names_identifies_nobody() {
        let params = CertificateParams::new(Vec::new()).unwrap();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert!(of(certificate.der()).0.is_empty());
        assert!(of(&CertificateDer::from(vec![1, 2, 3])).0.is_empty());
    }
}
