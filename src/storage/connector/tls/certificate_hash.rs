//! The hash of a server's certificate, which channel binding by `tls-server-end-point` uses
//! (RFC 5929, section 4.1).

use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// Object identifiers of signature algorithms, in DER without tag and length, and their hashes.
/// Those of MD5 and SHA-1 stand for SHA-256.
const ALGORITHMS: [(&[u8], Hash); 9] = [
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04], Hash::Sha256),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05], Hash::Sha256),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b], Hash::Sha256),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c], Hash::Sha384),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d], Hash::Sha512),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01], Hash::Sha256),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02], Hash::Sha256),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03], Hash::Sha384),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04], Hash::Sha512),
];

#[derive(Clone, Copy)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// The tags of DER that lead to a certificate's signature algorithm.
const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// The hash of a certificate in DER. None if its signature algorithm has no single hash, as Ed25519,
/// or names it elsewhere, as RSASSA-PSS: channel binding is then not possible.
pub(crate) fn find(certificate: &[u8]) -> Option<Vec<u8>> {
    let (parts, _) = element(SEQUENCE, certificate)?;
    let (_, after_signed_part) = element(SEQUENCE, parts)?;
    let (algorithm, _) = element(SEQUENCE, after_signed_part)?;
    let (identifier, _) = element(OBJECT_IDENTIFIER, algorithm)?;
    let (_, hash) = ALGORITHMS.iter().find(|(known, _)| *known == identifier)?;
    Some(match hash {
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

/// The content of the element of DER that some bytes begin with, and the bytes behind it.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // As many bytes as this hold the length; no certificate needs more than four.
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (length.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)), rest)
        }
        _ => return None,
    };
    if found == tag { rest.split_at_checked(length) } else { None }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
    };

    use super::*;

    fn certificate(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let parameters = rcgen::CertificateParams::new(["db.example".to_owned()]).unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let of_256 = certificate(&PKCS_ECDSA_P256_SHA256);
        assert_eq!(find(&of_256), Some(Sha256::digest(&of_256).to_vec()));
        let of_384 = certificate(&PKCS_ECDSA_P384_SHA384);
        assert_eq!(find(&of_384), Some(Sha384::digest(&of_384).to_vec()));
    }

    #[test]
    fn a_signature_without_a_single_hash_and_damaged_certificates_have_none() {
        assert_eq!(find(&certificate(&PKCS_ED25519)), None);
        let whole = certificate(&PKCS_ECDSA_P256_SHA256);
        for length in 0..whole.len() {
            assert_eq!(find(&whole[..length]), None, "{length}");
        }
        for first in 0..=255 {
            assert_eq!(find(&[0x30, first, 0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        }
    }
}
