use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::{collection::vec, prelude::*};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use serde_json::{Value, json};

use super::*;

const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An issuer with one Ed25519 and one P-256 key.
struct Issuer {
    ed25519: Ed25519KeyPair,
    p256: EcdsaKeyPair,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let p256 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self {
            ed25519: Ed25519KeyPair::from_pkcs8(ed25519.as_ref()).unwrap(),
            p256: EcdsaKeyPair::from_pkcs8(
                &ECDSA_P256_SHA256_FIXED_SIGNING,
                p256.as_ref(),
                &random,
            )
            .unwrap(),
        }
    }

    fn key_set(&self) -> Value {
        let point = self.p256.public_key().as_ref();
        json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "use": "sig", "alg": "EdDSA",
             "x": encode(self.ed25519.public_key())},
            {"kty": "EC", "crv": "P-256", "kid": "ec",
             "x": encode(&point[1..33]), "y": encode(&point[33..])},
            // Keys that are not for signatures, or of an unknown kind, are left out.
            {"kty": "oct", "kid": "secret", "k": "c2VjcmV0"},
            {"kty": "OKP", "crv": "X25519", "kid": "agree", "x": encode([1; 32])},
            {"kty": "EC", "crv": "P-256", "kid": "enc", "use": "enc",
             "x": encode(&point[1..33]), "y": encode(&point[33..])},
        ]})
    }

    fn keys(&self) -> Keys {
        Keys::parse(self.key_set().to_string().as_bytes()).unwrap()
    }

    fn sign(&self, header: &Value, claims: &str) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims));
        let signature = match header["alg"].as_str() {
            Some("ES256") => {
                self.p256.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec()
            }
            _ => self.ed25519.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", encode(signature))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "EdDSA", "kid": "ed", "typ": "JWT"}), &claims.to_string())
    }
}

fn verifier() -> Verifier {
    Verifier::new(Expectations {
        issuer: "https://id.example".to_owned(),
        audience: "trunkline".to_owned(),
        principal_claim: "sub".to_owned(),
        algorithms: vec![Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256],
        leeway: Duration::from_secs(30),
    })
}

fn claims() -> Value {
    json!({"iss": "https://id.example", "aud": "trunkline", "sub": "billing", "exp": NOW + 300})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

#[test]
fn a_token_of_each_kind_of_key_proves_its_principal() {
    let issuer = Issuer::new();
    let expected =
        Verified { principal: "billing".to_owned(), expires_at: now() + Duration::from_secs(330) };
    for header in [json!({"alg": "EdDSA", "kid": "ed"}), json!({"alg": "ES256", "kid": "ec"})] {
        let token = issuer.sign(&header, &claims().to_string());
        assert_eq!(verifier().verify(&token, &issuer.keys(), now()), Ok(expected.clone()));
    }
}

#[test]
fn an_rsa_signature_is_checked() {
    // RFC 7515, appendix A.2.
    let key_set = json!({"keys": [{"kty": "RSA", "e": "AQAB", "n":
        "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0\
         Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS\
         5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH\
         7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}]});
    let keys = Keys::parse(key_set.to_string().as_bytes()).unwrap();
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leG\
                 FtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJb\
                 u3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFd\
                 iuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--\
                 xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5\
                 AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    // The signature is right, and the claims are not those of this broker.
    let verified = verifier().verify(token, &keys, now());
    assert_eq!(verified, Err(Refusal::Claim("iss".to_owned())));
    let forged = token.replacen("eyJpc3MiOiJqb2Ui", "eyJpc3MiOiJqb2Ij", 1);
    assert_eq!(verifier().verify(&forged, &keys, now()), Err(Refusal::Signature));
}

#[test]
fn a_token_that_says_something_else_is_refused_with_the_claim() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let refused = |claims: &Value| verifier().verify(&issuer.token(claims), &keys, now());
    let claim = |name: &str| Err(Refusal::Claim(name.to_owned()));
    assert_eq!(refused(&with("iss", json!("https://id.example/"))), claim("iss"));
    assert_eq!(refused(&without("iss")), claim("iss"));
    assert_eq!(refused(&with("aud", json!("other"))), claim("aud"));
    assert_eq!(refused(&with("aud", json!(["other", 3]))), claim("aud"));
    assert_eq!(refused(&without("aud")), claim("aud"));
    assert_eq!(refused(&without("exp")), claim("exp"));
    for bad in [json!("1800000300"), json!(-1), json!(1e300), json!(null)] {
        assert_eq!(refused(&with("exp", bad)), claim("exp"));
    }
    assert_eq!(refused(&without("sub")), claim("sub"));
    assert_eq!(refused(&with("sub", json!(["billing"]))), claim("sub"));
    assert_eq!(refused(&with("nbf", json!("soon"))), claim("nbf"));
    assert!(refused(&with("aud", json!(["other", "trunkline"]))).is_ok());
}

#[test]
fn clocks_may_differ_by_the_leeway_and_no_more() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let of = |claims: &Value| verifier().verify(&issuer.token(claims), &keys, now());
    assert!(of(&with("exp", json!(NOW - 29))).is_ok());
    assert_eq!(of(&with("exp", json!(NOW - 30))), Err(Refusal::Expired));
    assert!(of(&with("nbf", json!(NOW + 30))).is_ok());
    assert_eq!(of(&with("nbf", json!(NOW + 31))), Err(Refusal::NotYetValid));
}

#[test]
fn an_algorithm_that_is_not_allowed_or_does_not_fit_the_key_is_refused() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let of = |header: Value| {
        verifier().verify(&issuer.sign(&header, &claims().to_string()), &keys, now())
    };
    for algorithm in ["none", "HS256", "PS256", "eddsa", ""] {
        assert_eq!(of(json!({"alg": algorithm, "kid": "ed"})), Err(Refusal::Algorithm));
    }
    // The key of one algorithm, named by another.
    assert_eq!(of(json!({"alg": "ES256", "kid": "ed"})), Err(Refusal::Algorithm));
    assert_eq!(of(json!({"alg": "RS256", "kid": "ec"})), Err(Refusal::Algorithm));
}

#[test]
fn only_the_key_that_is_named_counts() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let of = |header: Value, keys: &Keys| {
        verifier().verify(&issuer.sign(&header, &claims().to_string()), keys, now())
    };
    assert_eq!(of(json!({"alg": "EdDSA", "kid": "old"}), &keys), Err(Refusal::UnknownKey));
    // Which of several keys is meant must be said.
    assert_eq!(of(json!({"alg": "EdDSA"}), &keys), Err(Refusal::UnknownKey));
    assert_eq!(of(json!({"alg": "EdDSA", "kid": "enc"}), &keys), Err(Refusal::UnknownKey));
    let others = Issuer::new().keys();
    assert_eq!(of(json!({"alg": "EdDSA", "kid": "ed"}), &others), Err(Refusal::Signature));
    assert_eq!(of(json!({"alg": "EdDSA", "kid": "ed"}), &Keys::default()), Err(Refusal::NoKeys));
    let mut set = issuer.key_set();
    set["keys"].as_array_mut().unwrap().truncate(1);
    let single = Keys::parse(set.to_string().as_bytes()).unwrap();
    assert!(of(json!({"alg": "EdDSA"}), &single).is_ok());
}

#[test]
fn a_token_that_cannot_be_read_is_malformed() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let header = json!({"alg": "EdDSA", "kid": "ed"});
    let twice = claims().to_string().replacen('{', r#"{"sub":"admin","#, 1);
    let deep = format!("{}{}", "[".repeat(2_000), "]".repeat(2_000));
    let critical = json!({"alg": "EdDSA", "kid": "ed", "crit": ["exp"]});
    let good = issuer.token(&claims());
    for bad in [
        String::new(),
        "..".to_owned(),
        "a.b".to_owned(),
        format!("{good}.x"),
        format!("{good}="),
        "x".repeat(9_000),
        issuer.sign(&header, &twice),
        issuer.sign(&header, "[]"),
        issuer.sign(&header, &deep),
        issuer.sign(&critical, &claims().to_string()),
    ] {
        let refused = verifier().verify(&bad, &keys, now());
        assert!(matches!(refused, Err(Refusal::Malformed(_))), "{bad}: {refused:?}");
    }
}

#[test]
fn a_key_set_without_a_usable_key_is_refused() {
    for (bad, problem) in [
        ("", "is not a JSON Web Key Set"),
        ("[]", "is not a JSON Web Key Set"),
        (r#"{"keys": []}"#, "has no key"),
        (r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}"#, "has no key"),
        (r#"{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}"#, "has no key"),
    ] {
        let error = Keys::parse(bad.as_bytes()).err().unwrap();
        assert!(error.contains(problem), "{error}");
    }
    let many = json!({"keys": vec![json!({"kty": "oct"}); 101]}).to_string();
    assert!(Keys::parse(many.as_bytes()).err().unwrap().contains("limit is 100"));
}

proptest! {
    #[test]
    fn no_bytes_make_the_verifier_panic(text in ".{0,200}", parts in vec(vec(any::<u8>(), 0..60), 3)) {
        let keys = Keys::default();
        let _ = verifier().verify(&text, &keys, now());
        let _ = verifier().verify(&parts.iter().map(encode).collect::<Vec<_>>().join("."), &keys, now());
    }

    #[test]
    fn a_token_with_a_changed_byte_is_refused(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let issuer = Issuer::new();
        let keys = issuer.keys();
        let mut token = issuer.token(&claims()).into_bytes();
        let at = at.index(token.len());
        prop_assume!(token[at] != byte);
        token[at] = byte;
        if let Ok(token) = String::from_utf8(token) {
            prop_assert!(verifier().verify(&token, &keys, now()).is_err());
        }
    }
}
