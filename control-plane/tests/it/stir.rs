//! The two routes of ATIS-1000082 (ST-76 to ST-80).

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Plane, document};

const URL: &str = "https://certs.example.com/sp.pem";
const SIGNING: &str = "/stir/v1/signing";
const VERIFICATION: &str = "/stir/v1/verification";
const ORIGID: &str = "de305d54-75b4-431b-adb2-eb6b9e546014";
/// TNAuthList of SPC "1234" (RFC 8226 9).
const SPC: &[u8] = &[0x30, 0x08, 0xa0, 0x06, 0x16, 0x04, 0x31, 0x32, 0x33, 0x34];

/// An authority and a certificate of it, as PEM: anchor, chain, key.
fn certificates(tn_auth_list: &[u8]) -> [String; 3] {
    let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "STI-CA of a test");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(authority, key()).unwrap();
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name.push(DnType::CommonName, "SHAKEN 1234");
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.use_authority_key_identifier_extension = true;
    let oid = [1, 3, 6, 1, 5, 5, 7, 1, 26];
    let list = CustomExtension::from_oid_content(&oid, tn_auth_list.to_vec());
    leaf.custom_extensions = vec![list];
    let leaf_key = key();
    let leaf = leaf.signed_by(&leaf_key, &authority).unwrap();
    [authority.pem(), leaf.pem(), leaf_key.serialize_pem()]
}

fn install(plane: &Plane, [anchor, chain, key]: &[String; 3]) {
    let folder = plane.data().join("certs");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, text) in [("sti-ca.pem", anchor), ("sp.pem", chain), ("sp.key", key)] {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

fn config(more: &str) -> String {
    let block = format!(
        "  stir_shaken:\n    certificate_path: certs/sp.pem\n    private_key_path: certs/sp.key\n    \
         ca_cert_path: certs/sti-ca.pem\n    certificate_url: \"{URL}\"\n{more}control:\n"
    );
    document("edge-1", "").replace("control:\n", &block)
}

fn now() -> u64 {
    ravelin_control::clock::unix_ms() / 1_000
}

fn signing_body() -> Value {
    json!({"signingRequest": {"attest": "A", "dest": {"tn": ["12125550100"]}, "iat": now(),
        "orig": {"tn": "13135551000"}, "origid": ORIGID}})
}

fn verification_body(identity: &str) -> Value {
    json!({"verificationRequest": {"from": {"tn": "+1 (313) 555-1000"}, "time": now(),
        "to": {"tn": ["12125550100"]}, "identity": identity}})
}

/// The body with one member changed or, if null, removed.
fn but(mut body: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = body.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(name)
    } else {
        parent.insert(name.to_owned(), value)
    };
    body
}

async fn sign(plane: &Plane, body: Value) -> String {
    let (status, answer) = plane.post(SIGNING, body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer["signingResponse"]["identity"].as_str().unwrap().to_owned()
}

async fn verdict(plane: &Plane, body: Value) -> Value {
    let (status, mut answer) = plane.post(VERIFICATION, body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer["verificationResponse"].take()
}

fn message_id(answer: &Value) -> String {
    let error = &answer["requestError"];
    let of = |kind: &str| error[kind]["messageId"].as_str().map(str::to_owned);
    of("serviceException").or_else(|| of("policyException")).unwrap_or_else(|| answer.to_string())
}

#[tokio::test]
async fn what_is_signed_verifies_and_nothing_else_does() {
    let plane = Plane::start(&config("")).await;
    install(&plane, &certificates(SPC));
    let identity = sign(&plane, signing_body()).await;
    assert!(identity.ends_with(&format!(";info=<{URL}>;alg=ES256;ppt=shaken")), "{identity}");
    let passed = verdict(&plane, verification_body(&identity)).await;
    let expected = json!({"verstat": "TN-Validation-Passed", "attest": "A", "origid": ORIGID});
    assert_eq!(passed, expected);

    let at = |pointer: &str| format!("/verificationRequest/{pointer}");
    let other = |pointer: &str, value| but(verification_body(&identity), &at(pointer), value);
    let (token, parameters) = identity.split_once(';').unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let last = if signature.starts_with('A') { 'B' } else { 'A' };
    let changed = format!("{signed}.{last}{};{parameters}", &signature[1..]);
    let elsewhere = identity.replace("info=<https://certs", "info=<https://other");
    for (body, verstat, code, reason) in [
        (other("from/tn", json!("13135551001")), "TN-Validation-Failed", 438, "orig_mismatch"),
        (other("to/tn", json!(["12125550101"])), "TN-Validation-Failed", 438, "dest_mismatch"),
        (verification_body(&changed), "TN-Validation-Failed", 438, "signature"),
        (verification_body(&elsewhere), "TN-Validation-Failed", 436, "info_not_x5u"),
        (verification_body("noise"), "TN-Validation-Failed", 438, "identity_syntax"),
        (verification_body(""), "No-TN-Validation", 428, "no_identity"),
    ] {
        let found = verdict(&plane, body).await;
        assert_eq!(found["verstat"], verstat, "{found}");
        assert_eq!((&found["reasoncode"], &found["reasonCode"]), (&json!(code), &json!(code)));
        assert_eq!((&found["reasondesc"], &found["reasonDesc"]), (&json!(reason), &json!(reason)));
        assert!(found["reasontext"].is_string() && found["attest"].is_null(), "{found}");
    }

    let events = plane.get("/api/audit/events?kind=stir.signed").await;
    let fields = &events["events"][0]["fields"];
    assert_eq!((&fields["orig"], &fields["attest"]), (&json!("13135551000"), &json!("A")));
    let text = plane.http.get(format!("{}/metrics", plane.base)).send().await.unwrap();
    let text = text.text().await.unwrap();
    for line in [
        "ravelin_control_stir_signed_total{attest=\"A\"} 1",
        "ravelin_control_stir_verified_total{outcome=\"passed\"} 1",
        "ravelin_control_stir_verified_total{outcome=\"none-absent\"} 1",
    ] {
        assert!(text.lines().any(|have| have == line), "{line}");
    }
    plane.stop().await;
}

#[tokio::test]
async fn a_certificate_of_others_is_not_trusted() {
    let plane = Plane::start(&config("")).await;
    let (ours, foreign) = (certificates(SPC), certificates(SPC));
    install(&plane, &foreign);
    let theirs = sign(&plane, signing_body()).await;
    // The files change under the running server: what it signs with changes with them.
    install(&plane, &ours);
    let of_ours = sign(&plane, signing_body()).await;
    let passed = verdict(&plane, verification_body(&of_ours)).await;
    assert_eq!(passed["verstat"], "TN-Validation-Passed");
    let refused = verdict(&plane, verification_body(&theirs)).await;
    assert_eq!(
        (&refused["reasoncode"], &refused["reasondesc"]),
        (&json!(438), &json!("signature"))
    );
    // Their chain under our URL, with our anchor: not an authority that we trust.
    install(&plane, &[ours[0].clone(), foreign[1].clone(), foreign[2].clone()]);
    let refused = verdict(&plane, verification_body(&theirs)).await;
    assert_eq!(
        (&refused["reasoncode"], &refused["verstat"]),
        (&json!(437), &json!("TN-Validation-Failed"))
    );
    // A URL of which nothing is known here: it could not be decided.
    install(&plane, &ours);
    let other = config("").replace("certs.example.com", "other.example.com");
    let (_, staged) = plane.send(Method::PUT, "/api/config", &other).await;
    let body = json!({"version": staged["version"]});
    assert_eq!(plane.post("/api/config/activate", body).await.0, StatusCode::OK);
    let unknown = verdict(&plane, verification_body(&of_ours)).await;
    assert_eq!(
        (&unknown["reasoncode"], &unknown["verstat"]),
        (&json!(436), &json!("No-TN-Validation"))
    );
    plane.stop().await;
}

#[tokio::test]
async fn bad_requests_are_named_in_the_shape_of_the_interface() {
    let plane = Plane::start(&config("    default_attestation: B\n")).await;
    install(&plane, &certificates(SPC));
    let at = |pointer: &str| format!("/signingRequest/{pointer}");
    let good = || but(signing_body(), &at("attest"), json!("B"));
    assert_eq!(plane.post(SIGNING, good()).await.0, StatusCode::OK);
    for (pointer, value, id) in [
        ("attest", Value::Null, "SVC4001"),
        ("attest", json!("D"), "SVC4005"),
        ("attest", json!(""), "SVC4005"),
        ("attest", json!(1), "SVC4005"),
        ("orig", Value::Null, "SVC4001"),
        ("orig/tn", Value::Null, "SVC4001"),
        ("orig/tn", json!("alice"), "SVC4005"),
        ("orig/tn", json!(""), "SVC4005"),
        ("orig/tn", json!(["13135551000"]), "SVC4005"),
        ("dest", Value::Null, "SVC4001"),
        ("dest/tn", json!([]), "SVC4001"),
        ("dest/tn", json!("12125550100"), "SVC4005"),
        ("dest/tn", json!(["1234567890123456"]), "SVC4005"),
        ("iat", Value::Null, "SVC4001"),
        ("iat", json!(now() - 3_600), "SVC4005"),
        ("iat", json!(now() + 3_600), "SVC4005"),
        ("iat", json!(now().to_string()), "SVC4005"),
        ("iat", json!(1.5), "SVC4005"),
        ("origid", Value::Null, "SVC4001"),
        ("origid", json!("call-1"), "SVC4005"),
        ("div", json!({"tn": "1"}), "SVC4005"),
    ] {
        let (status, answer) = plane.post(SIGNING, but(good(), &at(pointer), value.clone())).await;
        let found = (status, message_id(&answer));
        assert_eq!(found, (StatusCode::BAD_REQUEST, id.to_owned()), "{pointer} {value}: {answer}");
        let named = answer["requestError"]["serviceException"]["variables"][0].as_str();
        let name = pointer.split('/').next().unwrap();
        assert!(named.is_some_and(|named| named.starts_with(name)), "{pointer}: {answer}");
    }
    let (status, answer) = plane.post(SIGNING, signing_body()).await;
    assert_eq!((status, &*message_id(&answer)), (StatusCode::FORBIDDEN, "POL4031"), "above B");
    for (pointer, value, id) in [
        ("identity", Value::Null, "SVC4001"),
        ("time", Value::Null, "SVC4001"),
        ("time", json!(now() - 3_600), "SVC4005"),
        ("from", json!({"tn": "x"}), "SVC4005"),
        ("to", json!({}), "SVC4001"),
        ("identity", json!("x".repeat(9_000)), "SVC4005"),
    ] {
        let body = but(verification_body("x"), &format!("/verificationRequest/{pointer}"), value);
        let (status, answer) = plane.post(VERIFICATION, body).await;
        assert_eq!((status, &*message_id(&answer)), (StatusCode::BAD_REQUEST, id), "{pointer}");
    }
    plane.stop().await;
}

/// One request as it is, and what it gets: status, message id, headers.
async fn raw(
    plane: &Plane,
    method: Method,
    path: &str,
    headers: &[(&'static str, &'static str)],
    body: &str,
) -> (u16, String, HeaderMap) {
    let mut request = plane.http.request(method, format!("{}{path}", plane.base));
    let mut all = HeaderMap::new();
    let bearer = format!("Bearer {}", plane.admin);
    all.insert("authorization", bearer.parse().unwrap());
    all.insert("content-type", "application/json".parse().unwrap());
    for (name, value) in headers {
        all.insert(*name, value.parse().unwrap());
    }
    request = request.headers(all).body(body.to_owned());
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let answer: Value = response.json().await.unwrap();
    (status, message_id(&answer), headers)
}

#[tokio::test]
async fn the_frame_of_a_request_is_held_to_the_interface() {
    let plane = Plane::start(&config("")).await;
    let good = signing_body().to_string();
    let post = Method::POST;
    let large = format!("{{\"signingRequest\": \"{}\"}}", "x".repeat(70_000));
    type Headers = &'static [(&'static str, &'static str)];
    let cases: [(Method, &str, Headers, &str, u16, &str); 10] = [
        (post.clone(), SIGNING, &[], "", 400, "SVC4000"),
        (post.clone(), SIGNING, &[], "{", 400, "SVC4006"),
        (post.clone(), SIGNING, &[], "{}", 400, "SVC4001"),
        (post.clone(), SIGNING, &[("content-type", "text/plain")], &good, 415, "SVC4004"),
        (post.clone(), SIGNING, &[("accept", "text/xml")], &good, 406, "SVC4002"),
        (post.clone(), "/stir/v1/other", &[], &good, 404, "SVC4003"),
        (Method::GET, SIGNING, &[], "", 405, "POL4050"),
        (post.clone(), SIGNING, &[], &large, 413, "SVC4130"),
        (post.clone(), SIGNING, &[("authorization", "Bearer nobody")], &good, 401, "POL4010"),
        // There are no certificates in the data folder.
        (post.clone(), SIGNING, &[], &good, 503, "SVC5030"),
    ];
    for (method, path, headers, body, status, id) in cases {
        let found = raw(&plane, method, path, headers, body).await;
        assert_eq!((found.0, &*found.1), (status, id), "{path} {headers:?}");
        assert!(found.2.contains_key("x-requestid"));
    }
    let (_, _, headers) = raw(&plane, post, SIGNING, &[("x-requestid", "4250sidf")], "{}").await;
    assert_eq!(headers["x-requestid"], "4250sidf");
    // Without Content-Length, as only a client that speaks for itself does it.
    let address = plane.server.as_ref().unwrap().api_address();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST {SIGNING} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n",
        plane.admin
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 411 ") && answer.contains("SVC4007"), "{answer}");
    let viewer = plane.token("viewer").await;
    let (status, answer) =
        plane.call_as(&viewer, Method::POST, SIGNING, Some(signing_body())).await;
    assert_eq!((status, &*message_id(&answer)), (StatusCode::FORBIDDEN, "POL4030"));
    plane.stop().await;
}

#[tokio::test]
async fn a_certificate_for_one_number_signs_for_that_number_alone() {
    // one [2] IA5String "13135551000"
    let one = [&[0x30, 0x0f, 0xa2, 0x0d, 0x16, 0x0b], &b"13135551000"[..]].concat();
    let plane = Plane::start(&config("")).await;
    install(&plane, &certificates(&one));
    sign(&plane, signing_body()).await;
    let other = but(signing_body(), "/signingRequest/orig/tn", json!("13135551001"));
    let (status, answer) = plane.post(SIGNING, other).await;
    assert_eq!((status, &*message_id(&answer)), (StatusCode::FORBIDDEN, "POL4032"));
    // An emergency call goes to a service, not to a number (ST-74).
    let body = but(signing_body(), "/signingRequest/dest", json!({"uri": ["urn:service:sos"]}));
    let identity = sign(&plane, body).await;
    let mut ask = verification_body(&identity);
    ask["verificationRequest"]["to"] = json!({"uri": ["urn:service:sos"]});
    assert_eq!(verdict(&plane, ask).await["verstat"], "TN-Validation-Passed");
    plane.stop().await;
}
