//! Tokens that pass and tokens that do not.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn issuer(clock: Clock) -> TokenIssuer {
    TokenIssuer::new(TokenKeys::generate().unwrap(), DEFAULT_ISSUER, clock)
}

fn reference(name: &str, uid: &str) -> Reference {
    Reference { name: name.to_string(), uid: uid.to_string() }
}

fn binding() -> Binding {
    Binding {
        namespace: "shop".to_string(),
        serviceaccount: reference("default", "u-1"),
        pod: Some(reference("web-0", "u-2")),
        node: Some(reference("node-1", "u-3")),
        warnafter: Some(1_800_003_607),
        ..Binding::default()
    }
}

fn clock() -> Clock {
    Clock::simulated(Timestamp::from_second(1_800_000_000).unwrap())
}

fn part(token: &str, index: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_token_looks_like_upstreams() {
    let issuer = issuer(clock());
    let minted = issuer.mint(binding(), &["vault".to_string()], HOUR).unwrap();
    let jwks = issuer.jwks();
    assert_eq!(part(&minted.token, 0), json!({"alg": "ES256", "kid": jwks["keys"][0]["kid"]}));
    let expected = json!({
        "aud": ["vault"], "exp": 1_800_003_600, "iat": 1_800_000_000, "nbf": 1_800_000_000,
        "iss": DEFAULT_ISSUER, "jti": minted.id, "sub": "system:serviceaccount:shop:default",
        "kubernetes.io": {
            "namespace": "shop", "serviceaccount": {"name": "default", "uid": "u-1"},
            "pod": {"name": "web-0", "uid": "u-2"}, "node": {"name": "node-1", "uid": "u-3"}, "warnafter": 1_800_003_607,
        },
    });
    assert_eq!(part(&minted.token, 1), expected);
    assert_eq!(minted.expires.as_second(), 1_800_003_600);
    let verified = issuer.verify(&minted.token, &["vault".to_string(), "other".to_string()]).unwrap().unwrap();
    assert_eq!((verified.audiences, verified.claims.kubernetes), (vec!["vault".to_string()], binding()));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_good_from_its_start_to_its_end_and_a_minute() {
    let clock = clock();
    let issuer = issuer(clock.clone());
    let token = issuer.mint(binding(), &[], HOUR).unwrap().token;
    assert!(issuer.verify(&token, &[]).unwrap().is_some());
    clock.sleep(HOUR + Duration::from_secs(60)).await;
    assert!(issuer.verify(&token, &[]).is_ok());
    clock.sleep(Duration::from_secs(1)).await;
    assert_eq!(issuer.verify(&token, &[]), Err(TokenError::Expired));

    let slow = Clock::simulated(clock.now() - Duration::from_secs(61));
    let fresh = issuer.mint(binding(), &[], HOUR).unwrap().token;
    let behind = TokenIssuer::new(TokenKeys::from_pem(&issuer.keys.to_pem()).unwrap(), DEFAULT_ISSUER, slow);
    assert_eq!(behind.verify(&fresh, &[]), Err(TokenError::NotYetValid));
}

#[test]
fn the_wrong_audience_is_refused() {
    let issuer = issuer(Clock::system());
    let vault = ["vault".to_string()];
    let token = issuer.mint(binding(), &vault, HOUR).unwrap().token;
    let error = issuer.verify(&token, &[]).unwrap_err();
    let expected = format!("token audiences [\"vault\"] is invalid for the target audiences [\"{DEFAULT_ISSUER}\"]");
    assert_eq!(error.to_string(), expected);
    assert!(issuer.verify(&token, &vault).is_ok());
}

#[test]
fn a_changed_token_is_refused() {
    let issuer = issuer(Clock::system());
    let token = issuer.mint(binding(), &[], HOUR).unwrap().token;
    let parts: Vec<&str> = token.split('.').collect();
    let with = |header: &str, claims: &str, signature: &str| format!("{header}.{claims}.{signature}");
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let mut claims = part(&token, 1);
    claims["kubernetes.io"]["serviceaccount"]["name"] = json!("admin");
    claims["sub"] = json!("system:serviceaccount:shop:admin");
    assert_eq!(issuer.verify(&with(parts[0], &encode(&claims), parts[2]), &[]), Err(TokenError::BadSignature));

    let other = self::issuer(Clock::system()).mint(binding(), &[], HOUR).unwrap().token;
    assert_eq!(issuer.verify(&other, &[]), Err(TokenError::BadSignature), "another key of the same issuer's name");
    for header in [json!({"alg": "none"}), json!({"alg": "HS256"}), json!({"alg": "ES256", "kid": "nobody's"})] {
        assert!(issuer.verify(&with(&encode(&header), parts[1], parts[2]), &[]).is_err(), "{header}");
        assert!(issuer.verify(&with(&encode(&header), parts[1], ""), &[]).is_err(), "{header} unsigned");
    }
}

#[test]
fn what_is_no_token_of_ours_is_left_to_others() {
    let issuer = issuer(Clock::system());
    let elsewhere = TokenIssuer::new(TokenKeys::generate().unwrap(), "https://elsewhere", Clock::system());
    let foreign = elsewhere.mint(binding(), &[], HOUR).unwrap().token;
    for token in ["", "x", "a.b", "a.b.c", "abcdef.0123456789abcdef", "....", foreign.as_str()] {
        assert_eq!(issuer.verify(token, &[]), Ok(None), "{token}");
    }
}

#[test]
fn old_keys_still_verify_and_are_published() {
    let (old, new) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let keys = |pem: &str| TokenKeys::from_pem(pem).unwrap();
    let before = TokenIssuer::new(keys(&old.to_pem()), DEFAULT_ISSUER, Clock::system());
    let after = TokenIssuer::new(keys(&(new.to_pem() + &old.to_pem())), DEFAULT_ISSUER, Clock::system());
    let token = before.mint(binding(), &[], HOUR).unwrap().token;
    assert!(after.verify(&token, &[]).unwrap().is_some());
    assert_eq!(before.verify(&after.mint(binding(), &[], HOUR).unwrap().token, &[]), Err(TokenError::BadSignature));
    let published = after.jwks();
    assert_eq!(published["keys"][1], before.jwks()["keys"][0]);
    let document = after.openid_configuration("https://10.0.0.1:6443/openid/v1/jwks");
    assert_eq!(document["issuer"], DEFAULT_ISSUER);
}

/// The key and its id were made with Go's standard library, the way upstream does: SHA-256 of the PKIX public key, base64url.
#[test]
fn a_keys_id_is_upstreams() {
    let keys = TokenKeys::from_pem(GO_KEY).unwrap();
    assert_eq!(keys.0[0].id, GO_KEY_ID);
}

const GO_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgBOO2WAImFh1FwaQ1
0Ec7mDGhrhYtSHA1nnMzypsxfsqhRANCAAQWAzygQlJhdOzJzAHI1t5Y44w9ijUa
xSBsNX1M8qt8LzQHKZGF7aSFW/CyAYHJmjuv3NSIlCxgouKoyEnDOvrj
-----END PRIVATE KEY-----
";
const GO_KEY_ID: &str = "YocRr0oZewhAVQtrBdgaGYm5Y-MyHmgeChroTlXmUy4";
